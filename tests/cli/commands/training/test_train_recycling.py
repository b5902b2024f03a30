"""`iftplan train` with recycling: columns, a ledger by closed form, runs that are stopped and continued, and what is refused."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from iftplan.cli.main import main
from tests.support.cli_runs import document
from tests.support.processes.launches import environment

pytestmark = pytest.mark.slow

STEPS, BATCH, INTERVAL = 12, 64, 5
SETTINGS = f"--steps {STEPS} --set training.batch_size={BATCH} --set optimizer.lr=0.3 --set method.interval=3 --set training.threads=1 --set training.precision=32-true --set training.eval_interval=6 --set training.checkpoint_interval=4"
RECYCLING = f"--set recycling.interval={INTERVAL} --set recycling.threshold=0.3"

# zoo:digits-cnn by hand, whose budget every plan closes, and its layers with weights
FORWARD = 16 * 9 * 64 + 16 * 32 * 9 * 64 + 32 * 32 * 9 * 16 + 32 * 10
LAYERS = 4

RUNS = {
    "plain": "--method static",
    "measured": "--method static --set recycling.measure=true",
    "recycled": f"--method static {RECYCLING}",
    "rigl": f"--method rigl {RECYCLING}",
}

SCRIPT = """
import json, sys
from contextlib import contextmanager
from pathlib import Path
from iftplan.cli import progress
from iftplan.cli.main import main

@contextmanager
def stopping(*_, **__):
    def watch(moment):
        if moment.step == 7:
            raise SystemExit(137)  # a status of a signal, which nothing turns into a message
    yield watch

def run(command):
    try:
        main(command.split())
    except SystemExit as ended:
        return ended.code

whole = progress.watching
for name, command in json.load(sys.stdin).items():
    assert run(f"train {command} --out {name}") in (0, None), name
progress.watching = stopping
run(f"train {command} --out stopped")
assert not Path("stopped", "result.json").exists()
progress.watching = whole
assert run("train --resume --out stopped") in (0, None)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("recycling")
    commands = {name: f"{options} {SETTINGS}" for name, options in RUNS.items()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=place,
        input=json.dumps(commands),
        capture_output=True,
        timeout=900,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return place


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_only_runs_that_ask_for_it_have_the_columns(folder: Path) -> None:
    assert "dormant" not in rows(folder / "plain/metrics.csv")[0]
    measured = rows(folder / "measured/metrics.csv")
    assert all(0 <= float(row["dormant"]) <= 1 and row["recycled"] == "0" for row in measured)
    recycled = [int(row["recycled"]) for row in rows(folder / "recycled/metrics.csv")]
    assert recycled == sorted(recycled)
    assert recycled[-1] > 0


def test_measuring_changes_no_number_of_a_run(folder: Path) -> None:
    plain, measured = (document(folder / name / "result.json") for name in ("plain", "measured"))
    assert plain == measured


def test_the_ledger_has_what_measurements_cost(folder: Path) -> None:
    """Each of the two passes a batch through the network, and one sample for each layer and for the input."""
    found = document(folder / "recycled/result.json")
    assert found["train_macs"] == 3 * FORWARD * STEPS * BATCH + 2 * (BATCH + LAYERS + 1) * FORWARD
    assert found["dense_train_macs"] == 3 * FORWARD * STEPS * BATCH


def test_counts_are_the_plans_after_recycling(folder: Path) -> None:
    plain, recycled = (document(folder / name / "result.json") for name in ("plain", "recycled"))
    assert plain["nnz"] == recycled["nnz"]
    assert plain["density"] == recycled["density"]
    assert plain["weights_digest"] != recycled["weights_digest"]
    assert plain["run_digest"] != recycled["run_digest"]


def test_a_run_that_was_stopped_is_the_same_to_the_bit(folder: Path) -> None:
    """Stopped after step 7, it continues from step 4 and recycles at step 5 once more."""
    for name in ("metrics.csv", "result.json"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "rigl" / name).read_bytes()


def test_recycling_is_refused_where_dense_weights_are_trained_behind_masks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--method", "ste", *SETTINGS.split(), *RECYCLING.split(), "--out", "refused"])
    assert ended.value.code == 2
    assert "ste trains dense weights behind the masked ones" in " ".join(capsys.readouterr().err.split())
