"""Run directories that no training wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iftplan.base.documents import dumps, with_digest

RESULT = {
    "schema": "iftplan.result/1", "convention": "mac", "scope": "model", "model": "zoo:digits-cnn", "transform": "wide",
    "sparsity": 0.75, "distribution": "uniform", "method": "rigl", "data": "digits", "seed": 0, "metric_name": "accuracy",
    "metric": 0.9, "train_macs": 3 * 10**20 + 1, "forward_macs": 1000, "dense_forward_macs": 1000, "nnz": 25,
    "maskable_weights": 100,
}  # fmt: skip


def run_directory(home: Path, name: str, **changes: Any) -> Path:
    """A run that has ended; `config` stands in its run.json."""
    directory = home / name
    directory.mkdir(parents=True)
    config = changes.pop("config", None)
    record = {"schema": "iftplan.run/1", **({"config": config} if config else {})}
    (directory / "run.json").write_text(dumps(with_digest(record)))
    (directory / "result.json").write_text(dumps(with_digest({**RESULT, **changes})))
    return directory
