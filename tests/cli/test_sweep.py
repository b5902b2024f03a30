"""`iftplan sweep` as users meet it: tables and files, what is refused, and training that is killed and continued."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from types import ModuleType

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

import iftplan as ift
from iftplan.base.documents import check
from iftplan.runs.sweeps.grid import COLUMNS
from iftplan.runs.sweeps.queue import storage_at
from tests.support.cli_runs import Run, iftplan, many
from tests.support.hand_specs import chain
from tests.support.processes.twelve_trials import SWEEP, TRIALS, results, rows
from tests.support.programs import program

PLANS = "sweep chain.json --transforms wide,none,parallel --sparsities 0.5:0.9:0.2,3/4 --distributions uniform,erk"
COMMANDS = {
    "table": PLANS,
    "csv": f"{PLANS} --format csv",
    "csv file": f"{PLANS} -o plans.csv",
    "parquet": f"{PLANS} -o plans.parquet",
    "json": f"{PLANS} --format json",
    "markdown": f"{PLANS} --format markdown",
    "search": "sweep chain.json --transforms wide,none --sparsities 0.3,0.9 --search tpe --trials 12",
    "random": "sweep chain.json --transforms wide,none --sparsities 0.3,0.9 --search random --trials 12",
    "search csv": "sweep chain.json --transforms wide --sparsities 0.3,0.9 --search tpe --trials 2 --format csv",
    "search json": "sweep chain.json --transforms wide --sparsities 0.3,0.9 --search tpe --trials 2 --format json",
    "search csv file": "sweep chain.json --transforms wide --sparsities 0.3,0.9 --search tpe --trials 2 -o s.csv",
    "search parquet": "sweep chain.json --transforms wide --sparsities 0.3,0.9 --search tpe --trials 2 -o s.parquet",
    "one impossible": "sweep chain.json --transforms parallel --sparsities 0.5,0.9999999",
    "none possible": "sweep chain.json --transforms parallel --sparsities 0.9999999",
    "structures": "sweep chain.json --transforms wide --sparsities 0.5 --structures unstructured,2:4,block2x2 --format csv",
}
REFUSED = {
    "sweep chain.json --seeds 0,1": "--seeds needs --train",
    "sweep chain.json --retry-failed": "--retry-failed needs --train",
    "sweep chain.json --workers 2": "--workers needs --train",
    "sweep chain.json --out runs": "--out needs --train",
    "sweep chain.json --trials 5": "--trials is for a search",
    "sweep zoo:digits-cnn --train --search tpe --retry-failed": "a search goes on without what failed",
    "sweep chain.json --train --vary optimizer.lr=1 --vary optimizer.lr=2": "--vary optimizer.lr is given twice",
    "sweep chain.json --vary optimizer.lr=1,2": "--vary needs --train",
    "sweep chain.json --train --vary optimizer.lr": "Write it as in --vary optimizer.lr=0.1,0.05.",
    "sweep chain.json --train --vary method.name=set,rigl": "--vary cannot change method.name. --methods is for that.",
    "sweep chain.json --train --set plan.mask=2:4": "--set plan.mask would be the same for every point of the sweep. --structures is for that.",
    "sweep chain.json --train --vary plan.sparsity=0.5": "--transforms and its neighbours is for that.",
    "sweep chain.json --train --vary optimizer.lr=1,2 --search tpe": "--vary is for a grid",
    "sweep chain.json --train --steps 1": "no network to train",
    "sweep chain.json --transforms broad": "unknown family 'broad'",
    "sweep chain.json --transforms ,": "--transforms is empty",
    "sweep chain.json --sparsities 0.5:0.9": "Write FIRST:LAST:STEP",
    "sweep chain.json --sparsities 0.9:0.5:0.1": "is an empty range",
    "sweep chain.json --sparsities 0.5:0.9:0": "STEP has to be above 0",
    "sweep chain.json --sparsities 1": "outside [0, 1)",
    "sweep chain.json --sparsities ,": "--sparsities is empty",
    "sweep chain.json --distributions erl": "Distributions are uniform, er, erk",
    "sweep chain.json --keep-dense bodi": "Did you mean 'body'",
    "sweep chain.json -o nowhere/plans.parquet": "cannot be written",
    "sweep zoo:digits-cnn --train --methods rigel": "method.name",
    "sweep zoo:digits-cnn --train --heads size": "cannot be combined with --input",
    "sweep zoo:digits-cnn --train --seeds one": "--seeds 0,1,2",
    "sweep zoo:digits-cnn --train --transforms own.py:mine": "the built-in families only",
    "sweep zoo:digits-cnn --train --steps 1 --storage chain.json/journal.log": "--storage chain.json/journal.log",
}
OWN = """
from iftplan.families.derivation import family
from iftplan.families.symbols import b, d, m, n
mine = family("mine", cost=b * m * n * d, unknown="b", structure="branches")
"""


def test_a_budget_holds_for_every_plan_and_plain_sparsity_follows_from_it(tmp_path: Path) -> None:
    words = ["sweep", "zoo:digits-cnn", "--transforms", "none,wide", "--budget", "0.5x"]
    done = iftplan(*words, "--sparsities", "0.5", "--format", "json", cwd=tmp_path)
    plain, wide = json.loads(done.out)["rows"]
    assert (plain["budget"], wide["budget"], wide["sparsity"]) == ("0.5x", "0.5x", 0.5)
    assert plain["macs"] == plain["dense_macs"] // 2
    several = iftplan(*words, cwd=tmp_path)
    assert several.code == 2
    assert "--transforms none has one point" in several.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweeps")
    ift.save(chain(), str(path / "chain.json"))
    (path / "own.py").write_text(OWN)
    return path


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    texts = (*COMMANDS.values(), *REFUSED)
    return dict(zip((*COMMANDS, *REFUSED), many([text.split() for text in texts], folder), strict=True))


def test_all_forms_hold_the_same_points(runs: dict[str, Run], folder: Path) -> None:
    assert all(runs[name].code == 0 for name in ("table", "csv", "csv file", "parquet", "json", "markdown"))
    found = rows(runs["csv"].out)
    assert len(found) == 3 * 4 * 2
    assert list(found[0]) == list(COLUMNS)
    assert (folder / "plans.csv").read_text() == runs["csv"].out
    document = json.loads(runs["json"].out)
    check(document, "iftplan.sweep/1", "stdout")
    assert [str(row["macs"]) for row in document["rows"]] == [row["macs"] for row in found]
    assert [row["sparsity"] for row in document["rows"][:8:2]] == [0.5, 0.7, 0.9, 0.75]
    parquet = pd.read_parquet(folder / "plans.parquet")
    assert [str(v) for v in parquet["macs"]] == [row["macs"] for row in found]
    assert "transform" in runs["table"].out and "model chain.json" in runs["table"].out
    assert "written: plans.parquet" in runs["parquet"].message


def test_a_point_that_cannot_be_is_a_row_and_only_if_none_can_an_error(runs: dict[str, Run]) -> None:
    assert runs["one impossible"].code == 0
    assert "would need 1e+07 branches" in runs["one impossible"].out
    assert runs["none possible"].code == 2
    assert "there is no result: body: parallel" in runs["none possible"].message


def test_structures_are_points_too(runs: dict[str, Run]) -> None:
    assert [row["structure"] for row in rows(runs["structures"].out)] == ["unstructured", "2:4", "block2x2"]


def test_a_search_is_shown_beside_chance_at_equal_trials(runs: dict[str, Run]) -> None:
    lines = [line.split() for line in runs["search"].out.splitlines()]
    found = {line[0]: line[1:] for line in lines if line[1:2] == ["12"] and line[0] in ("tpe", "random")}
    assert 0 < float(found["random"][1]) < 1
    lost = float(found["tpe"][1]) <= float(found["random"][1])
    assert ("tpe did not beat random search" in runs["search"].out) == lost
    alone = [line for line in runs["random"].out.splitlines() if line.startswith("random")]
    assert len(alone) == 1


@pytest.mark.parametrize("form", ["csv", "json", "csv file", "parquet"])
def test_the_comparison_is_shown_where_the_rows_are_data(runs: dict[str, Run], form: str) -> None:
    run = runs[f"search {form}"]
    assert run.code == 0
    assert (
        run.err.count("hypervolume") == 1 and "did not beat random search" in run.err
    )  # two trials are chance's
    assert "hypervolume" not in run.out


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_is_said_in_one_paragraph(runs: dict[str, Run], arguments: str) -> None:
    run = runs[arguments]
    assert run.code == 2, run.err
    (line,) = (line for line in run.message.splitlines() if line.startswith("iftplan: "))
    assert REFUSED[arguments] in line


def test_nothing_that_was_refused_left_a_trace(runs: dict[str, Run], folder: Path) -> None:
    assert not list(folder.glob("sweeps/*/run.json"))


# --- killed, continued, and several at once -----------------------------------------------------------------

PATIENCE = 600.0
"""Seconds after which a sweep that finishes nothing more has failed."""


@pytest.fixture(scope="module")
def killing() -> ModuleType:
    """The processes of `benchmarks/processes/kill.py`; those that are forked need a parent that has computed nothing."""
    return program("kill")


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "the sweep does not go on"
        time.sleep(0.002)


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def states(out: Path) -> list[TrialState]:
    storage = storage_at(str(out / "journal.log"))
    (name,) = optuna.get_all_study_names(storage)
    return [trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials]


@pytest.mark.slow
def test_values_of_a_setting_are_runs_of_their_own(tmp_path: Path) -> None:
    options = (
        "--transforms wide --sparsities 0.75 --train --methods static,dense --steps 2 --out runs --format csv"
    )
    axes = "--vary optimizer.lr=0.1,0.05 --vary training.batch_size=32,64"
    (done,) = many([f"sweep zoo:digits-cnn {options} {axes}".split()], tmp_path)
    assert done.code == 0, done.err
    found = rows(done.out)
    assert len(found) == 2 * 4 and len({row["run"] for row in found}) == 8
    for row in found:
        config = json.loads((tmp_path / row["run"] / "run.json").read_text())["config"]
        rate, size = config["optimizer"]["lr"], config["training"]["batch_size"]
        assert row["varied"] == f"optimizer.lr={rate}, training.batch_size={size}"


@pytest.mark.slow
def test_a_run_that_was_removed_is_made_again_and_a_control_has_no_budget(tmp_path: Path) -> None:
    options = "--transforms wide --sparsities 0.75 --budget 1.2x --train --methods dense,static --steps 2 --out runs --format csv"
    words = f"sweep zoo:digits-cnn {options}".split()
    (first,) = many([words], tmp_path)
    assert first.code == 0, first.err
    assert [row["outcome"] for row in rows(first.out)] == ["trained"] * 2
    for row in rows(first.out):
        shutil.rmtree(tmp_path / row["run"])
    (second,) = many([words], tmp_path)
    assert second.code == 0, second.err
    assert [row["value"] for row in rows(second.out)] == [row["value"] for row in rows(first.out)]


@pytest.mark.slow
def test_twelve_trials_killed_twice_and_continued_by_two_at_once(killing: ModuleType, tmp_path: Path) -> None:
    out, said = tmp_path / "out", tmp_path / "stderr"
    words = (*SWEEP, "--out", str(out))
    before: dict[str, bytes] = {}
    for finished in (3, 7):
        pid = killing.spawned(words, said)
        until(lambda n=finished: len(results(out)) >= n and any(begun(out)))  # type: ignore[misc]
        os.kill(pid, SIGKILL)
        assert status(pid) == -SIGKILL
        assert before.items() <= results(out).items()
        before = results(out)
    tables = [tmp_path / "one.csv", tmp_path / "two.csv"]
    pids = [killing.spawned((*words, "-o", str(table)), said.with_name(table.stem)) for table in tables]
    assert [status(pid) for pid in pids] == [0, 0], said.read_text()
    found = results(out)
    assert len(found) == TRIALS and before.items() <= found.items()
    assert states(out) == [TrialState.COMPLETE] * TRIALS
    assert tables[0].read_bytes() == tables[1].read_bytes()
    table = rows(tables[0].read_text())
    assert sorted(Path(row["run"]).name for row in table) == sorted(found)
    assert {row["outcome"] for row in table} == {"trained"}
    again = killing.spawned(
        (*words, "-o", str(tables[1])), said
    )  # the worker's own processes, with nothing to do
    assert status(again) == 0 and results(out) == found


def begun(out: Path) -> Iterator[Path]:
    """Runs with a checkpoint and without a result."""
    made = {path.parent for path in out.glob("*/checkpoint-*.pt")}
    yield from (path for path in made if not (path / "result.json").exists())


@pytest.mark.slow
def test_workers_of_one_machine_take_over_from_one_that_is_killed_and_end_with_their_sweep(
    killing: ModuleType, tmp_path: Path
) -> None:
    out, said = tmp_path / "out", tmp_path / "stderr"
    words = (*SWEEP, "--out", str(out), "--workers", "2", "-o", str(tmp_path / "table.csv"))
    pid = killing.spawned(words, said)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    until(lambda: len(results(out)) >= 2)
    first = int(children.read_text().split()[0])
    os.kill(first, SIGKILL)
    until(lambda: len(results(out)) >= 4)
    others = children.read_text().split()
    os.kill(pid, SIGKILL)
    status(pid)
    until(lambda: not any(alive(int(other)) for other in others))
    left = TRIALS - len(results(out))
    assert left > 0, "the sweep was over before it was killed"
    pid = killing.spawned((*words[:-4], "-o", str(tmp_path / "table.csv")), said)
    assert status(pid) == 0, said.read_text()
    assert states(out) == [TrialState.COMPLETE] * TRIALS
    assert len(rows((tmp_path / "table.csv").read_text())) == TRIALS == len(results(out))


SEARCH = (
    "sweep", "zoo:digits-cnn", "--transforms", "wide,parallel,none", "--sparsities", "0.3,0.95", "--train",
    "--methods", "static,dense", "--search", "tpe", "--trials", "14", "--steps", "3",
    "--set", "training.checkpoint_interval=1", "--set", "training.batch_size=32",
)  # fmt: skip


@pytest.mark.slow
def test_a_search_over_runs_killed_twice_makes_the_choices_it_would_have_made(
    killing: ModuleType, tmp_path: Path
) -> None:
    whole, out, said = tmp_path / "whole", tmp_path / "out", tmp_path / "stderr"
    assert status(killing.spawned((*SEARCH, "--out", str(whole)), said)) == 0, said.read_text()
    words = (*SEARCH, "--out", str(out))
    for chosen in (9, 12):  # amid the random beginning, and where what was found decides
        pid = killing.spawned(words, said)
        until(lambda n=chosen: len(chosen_by("tpe", out)) >= n)  # type: ignore[misc]
        os.kill(pid, SIGKILL)
        assert status(pid) == -SIGKILL
    assert status(killing.spawned(words, said)) == 0, said.read_text()
    for sampler in ("tpe", "random"):
        assert chosen_by(sampler, out) == chosen_by(sampler, whole)
        assert len(chosen_by(sampler, out)) == 14
    assert results(out).keys() == results(whole).keys()
    assert {name: json.loads(text)["metric"] for name, text in results(out).items()} == {
        name: json.loads(text)["metric"] for name, text in results(whole).items()
    }


def chosen_by(sampler: str, out: Path) -> list[dict[str, object]]:
    """What a search asked for, whole choices in their order."""
    storage = storage_at(str(out / "journal.log"))
    names = [name for name in optuna.get_all_study_names(storage) if name.startswith(sampler)]
    trials = [t for name in names for t in optuna.load_study(study_name=name, storage=storage).trials]
    return [trial.params for trial in trials if len(trial.params) == 6]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
