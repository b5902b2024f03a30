"""Runs that learn from a teacher: the ledger by hand, resumed to the bit, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from iftplan.base.documents import loads, read_text
from iftplan.plans.document.plan import parse_plan
from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.cli_runs import Run, many

pytestmark = pytest.mark.slow

SHORT = "--set training.batch_size=32 --set training.threads=1 --set training.precision=32-true"
CUT = "--set training.checkpoint_interval=3"
LEARN = "--set distillation.teacher=wide --set distillation.features=0.5"
RUNS = {
    "dense": f"train --method dense --steps 5 {SHORT} --out dense",
    "wide": f"train --method densified --steps 5 {SHORT} --out wide",
    "sparse": f"train --steps 5 {SHORT} --out sparse",
    "alone": f"train --steps 6 {SHORT} {CUT} --out alone",
    "student": f"train --steps 6 {SHORT} {CUT} --set distillation.teacher=dense --out student",
    "of sparse": f"train --steps 6 {SHORT} {CUT} --set distillation.teacher=sparse/checkpoint-000000005.pt --out of-sparse",
    "featured": f"train --steps 6 {SHORT} {CUT} {LEARN} --out featured",
    "dry run": f"train --steps 6 {SHORT} --set distillation.teacher=dense --dry-run",
    "half": f"train --set plan.sparsity=1/2 --method densified --steps 1 {SHORT} --out half",
    "shapes": f"train --steps 6 {SHORT} --set distillation.teacher=dense --set distillation.features=1.0 --set distillation.layers=['3'] --out refused",
    "no layer": f"train --steps 6 {SHORT} {LEARN} --set distillation.layers=['nowhere'] --out refused",
    "nowhere": f"train --steps 6 {SHORT} --set distillation.teacher=nowhere --out refused",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distillation")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    return dict(zip(RUNS, many([text.split() for text in RUNS.values()], folder), strict=True))


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def test_the_teacher_is_in_the_ledger(runs: dict[str, Run], folder: Path) -> None:
    for name in ("dense", "wide", "sparse", "alone", "student", "of sparse", "featured"):
        assert runs[name].code == 0, runs[name].err
    path = str(folder / "alone" / "plan.json")
    cost, samples = TrainingCost.of(parse_plan(loads(read_text(path), path), path)), 6 * 32
    own = result(folder, "alone")["train_macs"]
    for name, forward in (("student", cost.dense), ("featured", cost.opened), ("of-sparse", cost.forward())):
        assert result(folder, name)["train_macs"] == own + samples * forward
        assert result(folder, name)["dense_train_macs"] == samples * cost.dense_step
    assert len({cost.dense, cost.opened}) == 2


def test_students_learn_something_else(runs: dict[str, Run], folder: Path) -> None:
    names = ("alone", "student", "featured", "of-sparse")
    assert len({result(folder, name)["weights_digest"] for name in names}) == 4
    assert len({result(folder, name)["run_digest"] for name in ("alone", "student", "featured")}) == 3


def test_a_resumed_student_is_the_same_to_the_bit(runs: dict[str, Run], folder: Path) -> None:
    cut = folder / "cut"
    shutil.copytree(folder / "featured", cut)
    shutil.copytree(folder / "wide", folder / "moved")
    (cut / "checkpoint-000000006.pt").unlink()
    (cut / "result.json").unlink()
    resumed, other = many(
        [
            ["train", "--resume", "--out", "cut", "--set", "distillation.teacher=moved"],
            ["train", "--resume", "--out", "student", "--set", "distillation.teacher=sparse"],
        ],
        folder,
    )
    assert resumed.code == 0, resumed.err
    assert (cut / "result.json").read_bytes() == (folder / "featured" / "result.json").read_bytes()
    assert (cut / "metrics.csv").read_bytes() == (folder / "featured" / "metrics.csv").read_bytes()
    assert other.code == 4  # the weights are others
    assert "teacher digest" in other.err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("shapes", "features of 3 have shape"),
        ("no layer", "names nowhere, which is not a module of both"),
        ("nowhere", "distillation.teacher is nowhere, where there is no run"),
    ],
)
def test_teachers_that_cannot_be_are_refused(
    runs: dict[str, Run], folder: Path, name: str, says: str
) -> None:
    assert runs[name].code == 2, runs[name].err
    assert says in runs[name].err
    assert not (folder / "refused" / "run.json").exists()


def test_a_dry_run_says_what_a_teacher_costs(runs: dict[str, Run]) -> None:
    assert "a forward pass of the teacher more" in runs["dry run"].out
