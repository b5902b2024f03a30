"""`iftplan train` under structures: the ledger by closed form, runs that are stopped and continued, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iftplan.cli.main import main
from tests.support.cli_runs import document
from tests.support.processes.launches import environment

pytestmark = pytest.mark.slow

STEPS, BATCH = 22, 64
END = round(0.75 * STEPS)
SETTINGS = f"--steps {STEPS} --set training.batch_size={BATCH} --set optimizer.lr=0.3 --set training.threads=1 --set training.precision=32-true --set training.eval_interval=6 --set training.checkpoint_interval=4"

# zoo:digits-cnn twice as wide, by hand: what is never masked, and the two convolutions that are
KEPT = 2 * 16 * 9 * 64 + 2 * 32 * 10
OPEN = KEPT + 4 * 16 * 32 * 9 * 64 + 4 * 32 * 32 * 9 * 16
BUDGET = 16 * 9 * 64 + 16 * 32 * 9 * 64 + 32 * 32 * 9 * 16 + 32 * 10

RUNS = {
    "srste": "2:8 --method srste",
    "srste-sparse": "2:8 --method srste --set method.input_gradient=sparse",
    "transposable": "2:8T --method transposable --set method.refresh=3",
    "mask-decay": "2:8 --method mask-decay",
    "structure-decay": "2:8 --method structure-decay",
    "iterative": "2:8 --method iterative",
    "srigl": "fan-in --method srigl --set method.interval=3 --set method.ablation=0.0",
    "ste": "unstructured --method ste",
    "top-kast": "unstructured --method top-kast --set method.margin=0.25 --set method.refresh=3",
}
STOPPED = ("srste", "transposable", "mask-decay", "srigl", "top-kast")

SCRIPT = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from iftplan.cli import progress
from iftplan.cli.main import main

@contextmanager
def stopping(*_, **__):
    def watch(moment):
        if moment.step == 10:
            raise SystemExit(137)  # a status of a signal, which nothing turns into a message
    yield watch

def run(command):
    try:
        main(command.split())
    except SystemExit as ended:
        return ended.code

whole = progress.watching
asked = json.load(sys.stdin)
for name, command in asked["runs"].items():
    assert run(f"{command} --out {name}") == 0, name
    if name in asked["stopped"]:
        progress.watching = stopping
        assert run(f"{command} --out {name}-half") == 137
        assert not Path(f"{name}-half", "result.json").exists()
        progress.watching = whole
        assert run(f"train --resume --out {name}-half") == 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("structured")
    runs = {name: f"train --set plan.mask={text} {SETTINGS}" for name, text in RUNS.items()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=environment(),
        input=json.dumps({"runs": runs, "stopped": STOPPED}),
        capture_output=True,
        timeout=600,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def of_eight(kept: int) -> int:
    """A forward pass with so many of every eight."""
    return KEPT + (OPEN - KEPT) * kept // 8


def steps_of(name: str, sparse: int) -> Iterator[int]:
    """MACs of one sample in every step."""
    for t in range(STEPS):
        match name:
            case "srste":
                yield sparse + 2 * OPEN
            case "srste-sparse" | "transposable" | "ste":
                yield 2 * sparse + OPEN
            case (
                "top-kast"
            ):  # of 4608 and 9216 weights, at 64 and 16 positions, a quarter more have gradients
                yield 3 * sparse + (OPEN - KEPT) // 4
            case "mask-decay":
                yield 3 * OPEN if t < END else sparse + 2 * OPEN
            case "structure-decay":  # three equal frames: 7:8, 4:8 and what the plan keeps
                frame = t * 3 // END
                yield (of_eight((7, 4)[frame]) if frame < 2 else sparse) + 2 * OPEN
            case "iterative":  # six rounds, each seen from the next step on
                done = max(0, t - 1) * 6 // END
                forward = of_eight(8 - done) if done < 6 else sparse
                yield 2 * forward + OPEN
            case _:  # srigl: an update every third step
                updates = 0 < t < END and t % 3 == 0
                yield sparse + 2 * OPEN if updates else 2 * sparse + OPEN


@pytest.mark.parametrize("name", RUNS)
def test_the_ledger_equals_the_closed_form_to_the_mac(folder: Path, name: str) -> None:
    found, plan = document(folder / name / "result.json"), document(folder / name / "plan.json")
    sparse = KEPT + sum(x["positions"] * x["nnz"] for x in plan["layers"] if x["maskable"])
    assert found["forward_macs"] == sparse <= BUDGET
    assert found["nnz"] == sum(x["nnz"] for x in plan["layers"] if x["maskable"])
    assert found["train_macs"] == BATCH * sum(steps_of(name, sparse))
    assert found["dense_train_macs"] == 3 * BUDGET * STEPS * BATCH


@pytest.mark.parametrize("name", RUNS)
def test_something_is_learnt(folder: Path, name: str) -> None:
    found = document(folder / name / "result.json")
    assert found["loss"] < 1.0
    assert found["method"] == name.removesuffix("-sparse")


@pytest.mark.parametrize("name", STOPPED)
def test_a_run_that_is_stopped_and_continued_is_the_same_to_the_bit(folder: Path, name: str) -> None:
    """Weights that nobody sees are in the checkpoint too: stopped after step 10, the newest is of step 8."""
    for record in ("metrics.csv", "result.json"):
        assert (folder / f"{name}-half" / record).read_bytes() == (folder / name / record).read_bytes()


REFUSED = {
    "--set plan.mask=2:8 --method transposable": "take srste or ste for these, or plan with a structure such as 2:8T",
    "--method srigl": "take RigL for these, or plan with the structure fan-in",
    "--set plan.mask=2:8T --method rigl": "train them with static, ste, srste or transposable, or use 2:8",
    "--method structure-decay": "take mask decay for these",
    "--set method.pull=-1 --method srste": "method.pull = -1",
    "--set method.refresh=0 --method ste": "method.refresh = 0",
    "--set method.ablation=2.0 --method srigl": "method.ablation = 2.0",
    "--set method.decay=cosine --method mask-decay": "method.decay = 'cosine'",
    "--set method.rounds=50 --method iterative": "50 rounds of pruning cannot be had",
    "--set method.input_gradient=some --method srste": "method.input_gradient = 'some'",
    "--from srste --method mask-decay": "starts dense and would drop the masks",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_cannot_be_names_the_nearest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["train", *SETTINGS.split(), *command.split(), "--out", "refused"])
    assert ended.value.code == 2
    assert REFUSED[command] in " ".join(capsys.readouterr().err.split())
    assert not Path("refused").exists()


def test_a_dry_run_says_what_a_step_costs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for name, plan in (("srste", "srste"), ("transposable", "transposable"), ("mask-decay", "srste")):
        with pytest.raises(SystemExit):
            main(["train", f"{plan}/plan.json", "--method", name, "--dry-run"])
        out = capsys.readouterr().out.replace(" ", "").replace("\u202f", "").replace("\xa0", "")
        sparse = document(folder / plan / "result.json")["forward_macs"]
        step = 2 * sparse + OPEN if name == "transposable" else sparse + 2 * OPEN
        assert f"trainingMACsasample{step}" in out
        assert (f"beforeanythingismasked:{3 * OPEN}MACs" in out) == (name == "mask-decay")


def test_masks_of_another_run_may_come_back_to_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Straight-through training begins where a run has ended, with zeros off its masks."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(
            [
                *["train", "--from", "srste", "--method", "srste", "--steps", "2", "--out", "more"],
                *SETTINGS.split()[2:],
            ]
        )
    assert ended.value.code in (0, None), capsys.readouterr().err
    assert document(folder / "more/result.json")["nnz"] == document(folder / "srste/result.json")["nnz"]
