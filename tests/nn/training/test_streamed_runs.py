"""Runs on streamed images: stopped at a step and continued with other workers, they end as the run that nobody stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iftplan.base.errors import StaleError
from iftplan.nn.reading.read import read_model
from iftplan.nn.training.loop import Loop, Moment, Watcher
from iftplan.nn.training.run import execute
from iftplan.plans.document.plan import plan_document
from iftplan.plans.plan import Plan
from iftplan.plans.request import make_plan
from iftplan.runs.document import merge, parse_run
from iftplan.runs.settings import RunConfig
from tests.support.programs import path_of

STEPS = 7
SETTINGS = {
    "plan": {"model": "zoo:resnet8-cifar", "transform": "wide", "sparsity": "3/4"},
    "data": {
        "kind": "auto",
        "size": 32,
        "random_resized_crop": [0.3, 1.0],
        "flip": True,
        "color_jitter": [0.4, 0.4, 0.4, 0.1],
        "cutout": 8,
        "mixup": 0.2,
    },
    "method": {"name": "rigl", "interval": 2},
    "training": {
        "steps": STEPS,
        "batch_size": 8,
        "checkpoint_interval": 2,
        "eval_interval": 3,
        "threads": 1,
        "precision": "32-true",
    },
}


class StoppedError(Exception):
    """A run was stopped on purpose."""


@pytest.fixture(scope="module")
def planned() -> Plan:
    run = parse_run(SETTINGS, "settings")
    return make_plan(read_model(run.plan.model, None, widths=True), run.plan.request)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", 9), ("test", 3)):
        for kind in ("cat", "dog"):
            folder = tmp_path / "data" / part / kind
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return tmp_path / "data"


def train(
    plan: Plan, data: Path, directory: Path, workers: int, *, stop: int = 0, resume: bool = False
) -> None:
    @contextmanager
    def watching(loop: Loop) -> Iterator[Watcher]:
        def watch(moment: Moment) -> None:
            if moment.step == stop:
                raise StoppedError

        yield watch

    run: RunConfig = parse_run(merge(SETTINGS, {"data": {"path": str(data), "workers": workers}}), "settings")
    said: list[str] = []
    source = run.plan.model
    execute(
        run,
        plan,
        plan_document(plan),
        directory,
        source=source,
        say=said.append,
        watching=watching,
        resume=resume,
    )


def test_a_stopped_run_ends_as_another_with_any_number_of_workers(
    planned: Plan, data: Path, tmp_path: Path
) -> None:
    """Stopped in the third epoch, one step after a checkpoint and two after an evaluation."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(planned, data, whole, 0)
    with pytest.raises(StoppedError):
        train(planned, data, stopped, 2, stop=5)
    train(planned, data, stopped, 1, resume=True)
    for name in ("result.json", "metrics.csv", "data-files.gz"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_does_not_go_on_with_other_data(planned: Plan, data: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(planned, data, tmp_path / "run", 0, stop=3)
    path = data / "train/cat/3.jpg"
    os.utime(path, ns=(1, 1))
    with pytest.raises(StaleError, match=r"modified: train/cat/3\.jpg.*delete .*data-files\.gz"):
        train(planned, data, tmp_path / "run", 0, resume=True)
    (tmp_path / "run/data-files.gz").unlink()
    train(planned, data, tmp_path / "run", 0, resume=True)


@pytest.mark.slow
def test_killed_runs_on_one_and_two_processes_are_equal_to_the_bit() -> None:
    few = ("--images=160", "--rounds=1", "--batches=1", "--kills=2", "--kills-on-two=1", "--steps=12")
    done = subprocess.run(
        [sys.executable, str(path_of("streaming")), *few], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("equal to the bit") == 2
