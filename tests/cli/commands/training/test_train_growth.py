"""`iftplan train` with growth: a budget closed to the step, a ledger by hand, and runs that are killed at any step."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from iftplan.cli.main import main
from iftplan.runs.records import parse_result
from tests.support.cli_runs import document
from tests.support.processes.launches import environment

pytestmark = pytest.mark.slow

STEPS, BATCH = 12, 32
SETTINGS = f"--method dense --steps {STEPS} --set training.batch_size={BATCH} --set optimizer.name=adam --set optimizer.lr=0.01 --set training.threads=1 --set training.precision=32-true --set training.eval_interval=4 --set training.checkpoint_interval=2"
GROWING = "--set growth.times=2 --set growth.budget=0.76"
RUNS = {
    "dense": "",
    **{how: f"{GROWING} --set growth.how={how}" for how in ("gradmax", "random", "replicas")},
}
DENSE = 16 * 9 * 64 + 16 * 32 * 9 * 64 + 32 * 32 * 9 * 16 + 32 * 10
"""MACs of zoo:digits-cnn: 3×3 convolutions on 64, 64 and 16 places, and a classifier."""

SCRIPT = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from iftplan.cli import progress
from iftplan.cli.main import main

last = [0]

@contextmanager
def stopping(*_, **__):
    def watch(moment):
        if moment.step == last[0]:
            raise SystemExit(137)  # a status of a signal, which nothing turns into a message
    yield watch

def run(command):
    try:
        main(command.split())
    except SystemExit as ended:
        return ended.code

whole = progress.watching
given = json.load(sys.stdin)
for name, command in given["runs"].items():
    assert run(f"train {command} --out {name}") in (0, None), name
for step in given["stops"]:
    last[0], progress.watching = step, stopping
    run(f"train {given['runs']['gradmax']} --out stopped-{step}")
    assert not Path(f"stopped-{step}", "result.json").exists()
    progress.watching = whole
    assert run(f"train --resume --out stopped-{step}") in (0, None)
"""
TOGETHER = """
from torch import distributed
from iftplan.cli.main import main
from iftplan.nn.training.loop import Loop
from iftplan.nn.training.records.states import model_state, tensors_digest

run = Loop.run

def checked(loop, watch):
    run(loop, watch)
    digests = [None, None]
    distributed.all_gather_object(digests, tensors_digest(model_state(loop.network, parts=True)))
    assert digests[0] == digests[1], digests

Loop.run = checked
main()
"""

STOPS = range(6, STEPS)
"""Growth is before steps 8 and 11, counted from 0: every step around them."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("growing")
    given = {"runs": {name: f"{SETTINGS} {options}" for name, options in RUNS.items()}, "stops": [*STOPS]}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=place,
        input=json.dumps(given),
        capture_output=True,
        timeout=900,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return place


def forward(first: int, second: int) -> int:
    """MACs of the network at two widths; the third, which is pooled, stays."""
    return 64 * 9 * first + 64 * 9 * first * second + 16 * 9 * second * 32 + 320


def by_hand(found: dict[str, Any]) -> list[int]:
    """MACs of each step, growth before it included: M is 9 × (32·9) and (first·9) × (32·9) products at 64 and at 16 places."""
    stages = {x["begin"]: (x["widths"]["0"], x["widths"]["3"]) for x in found["growth"]["stages"]}
    macs, widths = [], stages[0]
    for step in range(STEPS):
        growth = 0
        if step and step in stages:
            (a, b), widths = widths, stages[step]
            if found["growth"]["how"] == "gradmax":
                products = 64 * 9 * 9 * b + 16 * 9 * a * 9 * 32
                growth = BATCH * (3 * forward(a, b) + 3 * forward(*widths) + products)
        macs.append(growth + 3 * BATCH * forward(*widths))
    return macs


@pytest.mark.parametrize("how", ["gradmax", "random", "replicas"])
def test_the_ledger_is_that_of_every_steps_widths(folder: Path, how: str) -> None:
    found = document(folder / how / "result.json")
    macs = by_hand(found)
    assert found["train_macs"] == sum(macs)
    with (folder / how / "metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): int(row["train_macs"]) for row in csv.DictReader(file)}
    assert rows == {step: sum(macs[:step]) for step in (4, 8, 12)}
    assert [x["widths"] for x in found["growth"]["stages"]] == [
        {"0": 8, "3": 16},
        {"0": 12, "3": 24},
        {"0": 16, "3": 32},
    ]
    assert found["forward_macs"] == DENSE == forward(16, 32)


@pytest.mark.parametrize("how", ["gradmax", "random", "replicas"])
def test_the_budget_is_closed_to_the_step(folder: Path, how: str) -> None:
    found = document(folder / how / "result.json")
    budget = int(Fraction("0.76") * 3 * DENSE * BATCH * STEPS)
    assert found["dense_train_macs"] == 3 * DENSE * BATCH * STEPS
    assert found["growth"]["budget_macs"] == budget
    assert found["growth"]["left_macs"] == budget - found["train_macs"] >= 0
    begins = [x["begin"] for x in found["growth"]["stages"]]
    costs = [3 * BATCH * forward(*x["widths"].values()) for x in found["growth"]["stages"]]
    for stage in (1, 2):
        if begins[stage] - 1 > begins[stage - 1]:
            assert found["growth"]["left_macs"] < costs[stage] - costs[stage - 1]


@pytest.mark.parametrize("step", STOPS)
def test_a_run_killed_at_any_step_is_the_same_to_the_bit(folder: Path, step: int) -> None:
    """Checkpoints are two steps apart: before, at and behind growth steps."""
    for name in ("metrics.csv", "result.json"):
        assert (folder / f"stopped-{step}" / name).read_bytes() == (folder / "gradmax" / name).read_bytes()


def test_only_runs_that_grow_say_so(folder: Path) -> None:
    dense = document(folder / "dense/result.json")
    assert "growth" not in dense
    assert parse_result(document(folder / "gradmax/result.json"), "")["growth"]["how"] == "gradmax"
    assert dense["train_ratio"] == 1
    digests = {document(folder / name / "result.json")["run_digest"] for name in RUNS}
    assert len(digests) == len(RUNS)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method.name=rigl"], "only dense networks grow in a run"),
        (["growth.begin=1"], "begins at 1 and ends at 1 times"),
        (["training.ema=0.9"], "the average does not grow"),
        (["growth.budget=1.5"], "grow wider"),
        (["growth.budget=0.1"], "begin narrower"),
        (["growth.times=40"], "grow less often"),
        (["growth.layers=['6']"], "use growth.how=replicas"),
        (["growth.layers=['11']"], "no layer whose outputs can grow"),
    ],
)
def test_what_cannot_grow_is_refused_before_anything_is_written(
    tmp_path: Path, settings: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [x for text in settings for x in ("--set", text)]
    with pytest.raises(SystemExit) as ended:
        main(["train", *f"{SETTINGS} {RUNS['gradmax']}".split(), *options, "--out", str(tmp_path / "run")])
    assert ended.value.code in (2, 3)
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("how", ["gradmax", "replicas"])
def test_two_processes_grow_alike(folder: Path, how: str) -> None:
    """Both see half of every batch, and share the gradients that choose new neurons and those that train them."""
    (folder / "together.py").write_text(TOGETHER)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "together.py")
    command = f"train {SETTINGS} {RUNS[how]} --out two-{how}"
    done = subprocess.run(
        [sys.executable, *launch, *command.split()],
        cwd=folder,
        capture_output=True,
        timeout=300,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (document(folder / name / "result.json") for name in (how, f"two-{how}"))
    for key in ("train_macs", "growth", "run_digest", "forward_macs"):
        assert one[key] == two[key]
    assert two["loss"] == pytest.approx(one["loss"], rel=0.2)
