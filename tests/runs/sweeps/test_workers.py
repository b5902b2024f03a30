"""Workers of a training sweep: what ends a run does not end the sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.nn.training import trials
from iftplan.runs.settings import RunConfig
from iftplan.runs.sweeps.queue import TrialQueue, storage_at


def test_a_run_without_memory_has_its_reason_and_the_next_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    queue = TrialQueue(storage_at(str(tmp_path / "journal.log")), "grid", tmp_path)
    queue.add(["large", "small"])

    def trained(run: RunConfig, directory: Path, *_: Any) -> dict[str, Any]:
        if directory.name == "large":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"metric_name": "accuracy", "metric": 0.5, "train_macs": 7}

    monkeypatch.setattr(trials, "train_trial", trained)
    said: list[str] = []
    trials.work(queue, lambda claim: RunConfig(), said.append)
    assert queue.reasons() == {"large": "OutOfMemoryError: CUDA out of memory"}
    assert queue.ended() == (2, 2)
    assert said[0] == "large: failed: OutOfMemoryError: CUDA out of memory"
    assert said[1].startswith("small: accuracy 0.5000")
