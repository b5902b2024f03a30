"""Training of mixtures of experts: 100 steps on a small GPT, and a stopped run that ends as the run that nobody stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iftplan.base.documents import Document
from iftplan.nn.reading.read import read_model
from iftplan.nn.training.loop import Loop, Moment, Watcher
from iftplan.nn.training.run import execute
from iftplan.plans.document.plan import plan_document
from iftplan.plans.request import make_plan
from iftplan.runs.document import merge, parse_run

MODEL = """
from iftplan.nn.sources.zoo.gpt2 import GPT2LMHeadModel, GPT2Sizes


def build():
    return GPT2LMHeadModel(GPT2Sizes(layers=2, width=32, heads=2, vocabulary=256, context=16))
"""


class StoppedError(Exception):
    """A run was stopped on purpose."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(MODEL)
    (tmp_path / "text.txt").write_text("".join(f"{i} and {i * i}, so {i % 7}. " for i in range(900)))
    return tmp_path


def train(
    place: Path, out: str, transform: str, steps: int, *, stop: int = 0, resume: bool = False
) -> Document | None:
    settings = {
        "plan": {"model": f"{place}/small.py:build", "transform": transform, "input": "1x16:int64"},
        "data": {"kind": "auto", "path": str(place / "text.txt"), "context": 16},
        "method": {"name": "densified"},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "training": {
            "steps": steps,
            "batch_size": 8,
            "checkpoint_interval": 5,
            "eval_interval": 50,
            "threads": 1,
            "precision": "32-true",
        },
    }
    run = parse_run(merge(settings, {}), "settings")
    plan = make_plan(read_model(run.plan.model, run.plan.inputs, widths=True), run.plan.request)

    @contextmanager
    def watching(loop: Loop) -> Iterator[Watcher]:
        def watch(moment: Moment) -> None:
            if moment.step == stop:
                raise StoppedError

        yield watch

    return execute(
        run,
        plan,
        plan_document(plan),
        place / out,
        source=run.plan.model,
        say=lambda _: None,
        watching=watching,
        resume=resume,
    )


@pytest.mark.parametrize(
    "transform", ["experts:8x2", "experts:4x1+1:capacity=1.25", "experts:8x3:relu:locality=0.01:chunks=0.1"]
)
def test_a_hundred_steps_of_a_small_gpt_lower_its_loss(place: Path, transform: str) -> None:
    train(place, "run", transform, 100)
    rows = (place / "run" / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    losses = [float(row.split(",")[names.index("test_loss")]) for row in rows[1:]]
    assert len(losses) == 2
    assert losses[1] < losses[0] < 5.5  # ln 256 = 5.545 is that of guessing


def test_a_stopped_run_of_experts_ends_as_the_run_that_nobody_stopped(place: Path) -> None:
    train(place, "whole", "experts:8x2", 20)
    with pytest.raises(StoppedError):
        train(place, "stopped", "experts:8x2", 20, stop=12)
    train(place, "stopped", "experts:8x2", 20, resume=True)
    for name in ("result.json", "metrics.csv"):
        assert (place / "stopped" / name).read_bytes() == (place / "whole" / name).read_bytes(), name


def test_the_balancing_loss_is_part_of_what_is_trained(place: Path) -> None:
    train(place, "with", "experts:8x2:balance=1", 10)
    train(place, "without", "experts:8x2:balance=0", 10)
    assert (place / "with" / "metrics.csv").read_bytes() != (place / "without" / "metrics.csv").read_bytes()
