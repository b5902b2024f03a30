"""Documents that version 0.1.0 wrote before the files of the package moved into rooms: all of them are read, and mean what they meant.

`tests/written_before` holds what its commands wrote; nothing there may be written anew to make these tests pass.
"""

import json
import shutil
from pathlib import Path

import pytest

import iftplan as ift
from tests.support.cli_runs import iftplan
from tests.support.places import TESTS

WRITTEN = TESTS / "written_before"
PLANS = sorted(path.name for path in WRITTEN.glob("plan-*.json"))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A copy in which commands may write."""
    return shutil.copytree(WRITTEN, tmp_path / "written")


@pytest.mark.parametrize("name", [*PLANS, "spec.json"])
def test_plans_and_specs_are_written_as_they_were_read(name: str, tmp_path: Path) -> None:
    ift.save(ift.load(str(WRITTEN / name)), str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == (WRITTEN / name).read_bytes()


def test_every_family_is_among_them() -> None:
    assert {
        "plan-wide.json",
        "plan-parallel.json",
        "plan-factorized.json",
        "plan-doped.json",
        "plan-lowrank.json",
    } <= set(PLANS)


def test_the_same_plan_comes_of_the_spec(written: Path) -> None:
    """All but the source, which is now a document."""
    done = iftplan(
        "plan", "spec.json", "--transform", "wide", "--sparsity", "0.75", "--format", "json", cwd=written
    )
    assert done.code == 0, done.err
    now, before = json.loads(done.out), json.loads((WRITTEN / "plan-wide.json").read_text())
    assert now["layers"] == before["layers"]


def test_the_audit_of_a_plan_says_what_it_said(written: Path) -> None:
    done = iftplan("audit", "plan-wide.json", "--trust", "--format", "json", cwd=written)
    assert (done.code, done.out) == (0, (WRITTEN / "audit.json").read_text())


def test_reports_are_compared(written: Path) -> None:
    done = iftplan("diff", "audit.json", "measured.json", cwd=written)
    assert done.code == 0, done.err
    assert "451 904 → 451 904 MACs" in done.out + done.err


def test_two_plans_differ_as_they_did(written: Path) -> None:
    done = iftplan("diff", "plan-wide.json", "plan-erk.json", "--format", "json", cwd=written)
    assert (done.code, done.out) == (0, (WRITTEN / "diff.json").read_text())


def test_a_baseline_still_holds(written: Path) -> None:
    done = iftplan("check", "--no-cache", cwd=written)
    assert done.code == 0, done.err
    assert "unchanged" in done.out


def test_a_profile_still_prices_a_plan(written: Path) -> None:
    asked = ("plan", "zoo:digits-cnn", "--transform", "wide", "--sparsity", "0.9", "--objective", "wallclock")
    done = iftplan(*asked, "--profile", "profile.json", cwd=written)
    assert done.code == 0, done.err


def test_a_killed_run_goes_on(written: Path) -> None:
    """From step 22 to the end: the same counts as the run that nobody killed, which are whole numbers on any machine."""
    done = iftplan("train", "--resume", "--out", "killed", cwd=written)
    assert done.code == 0, done.err
    resumed, whole = (json.loads((written / run / "result.json").read_text()) for run in ("killed", "run"))
    for what in (
        "steps",
        "samples",
        "mask_updates",
        "nnz",
        "train_macs",
        "train_ratio_exact",
        "plan_digest",
        "run_digest",
    ):
        assert resumed[what] == whole[what]


def test_another_run_begins_with_its_weights(written: Path) -> None:
    asked = ("train", "--method", "static", "--steps", "2", "--from", "killed", "--out", "next")
    done = iftplan(*asked, cwd=written)
    assert done.code == 0, done.err


def test_a_sweep_trains_nothing_again(written: Path) -> None:
    weights = {path: path.read_bytes() for path in written.glob("sweep/*/result.json")}
    asked = (
        "sweep",
        "zoo:digits-cnn",
        "--transforms",
        "none",
        "--sparsities",
        "0.5",
        "--methods",
        "dense",
        "--seeds",
        "0",
    )
    done = iftplan(*asked, "--train", "--steps", "10", "--out", "sweep", cwd=written)
    assert done.code == 0, done.err
    assert len(weights) == 1
    assert {path: path.read_bytes() for path in written.glob("sweep/*/result.json")} == weights


def test_runs_stand_where_they_stood(written: Path) -> None:
    done = iftplan("pareto", "run", "sweep", "--format", "json", cwd=written)
    assert (done.code, done.out) == (0, (WRITTEN / "pareto.json").read_text())


def test_one_layer_is_solved_as_it_was(written: Path) -> None:
    done = iftplan("solve", "--layer", "linear:64-128", "--sparsity", "0.75", "--format", "json", cwd=written)
    assert (done.code, done.out) == (0, (WRITTEN / "solve.json").read_text())
