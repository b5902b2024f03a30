"""The command behind docs/results/results.md: its arms exist, its means and errors are those of the definition."""

from __future__ import annotations

import re
import shlex
from math import sqrt
from pathlib import Path

import pytest

from tests.support.cli_runs import many
from tests.support.programs import program

results = program("results")


def row(arm: str, method: str, seed: int, metric: float) -> dict[str, object]:
    return {
        "arm": arm,
        "method": method,
        "seed": seed,
        "metric": metric,
        "metric_name": "accuracy",
        "nnz": 0 if method == "dense" else 10,
        "maskable_weights": 0 if method == "dense" else 40,
        "forward_macs": 1234567,
        "train_ratio": 1.0,
        "itop": 1.0,
    }


def test_means_errors_and_paired_differences_by_hand() -> None:
    dense, sparse = (0.60, 0.64, 0.62), (0.61, 0.68, 0.63)
    rows = [row("dense", "dense", s, m) for s, m in enumerate(dense)]
    rows += [row("wide, set", "set", s, m) for s, m in enumerate(sparse)]
    found = results.table(rows).set_index("arm")
    error = sqrt(((0.60 - 0.62) ** 2 + (0.64 - 0.62) ** 2 + 0) / 2) / sqrt(3)
    assert found.loc["dense", "accuracy"] == f"62.00 ± {100 * error:.2f}"
    # differences 1, 4 and 1: mean 2, deviation √3, error 1
    assert found.loc["wide, set", "against dense"] == "+2.00 ± 1.00"
    assert found.loc["wide, set", "forward MACs"] == "1 234 567"


def test_losses_are_compared_at_the_training_macs_of_the_dense_run() -> None:
    """RigL's second evaluation lies at 2.2 T MACs: at 2 T its loss has fallen by 1/1.2 of the way from 3 to 1.8."""
    tera = 10**12
    dense = [[tera, 2.0], [2 * tera, 1.0]]
    rows = [row("dense", "dense", s, 0.6) | {"curve": dense} for s in (0, 1)]
    rows += [
        row("rigl", "rigl", s, 0.6) | {"curve": [[tera, 3.0 + s], [2.2 * tera, 1.8 + s]]} for s in (0, 1)
    ]
    rows.append(row("srste", "srste", 0, 0.6) | {"curve": [[1.5 * tera, 2.0], [3 * tera, 0.5]]})
    found = results.curves(rows, rows=2)
    assert list(found["srste"]) == ["", "1.500"], "nothing before its first evaluation"
    assert list(found.index) == ["1.00 T", "2.00 T"]
    assert list(found["dense"]) == ["2.000 ± 0.000", "1.000 ± 0.000"]
    # 3 - 1.2/1.2 and 4 - 1: mean 2.5, deviation 1/√2, error 1/2
    assert list(found["rigl"]) == ["3.500 ± 0.500", "2.500 ± 0.500"]
    assert results.curves([row("dense", "dense", 0, 0.6)]) is None, "older records have no curve"


def test_an_arm_that_ends_a_weight_before_dense_has_a_loss_there() -> None:
    dense = row("dense", "dense", 0, 0.6) | {"curve": [[10_000, 2.0], [100_000, 1.0]]}
    short = row("wide, set", "set", 0, 0.6) | {"curve": [[10_000, 2.0], [99_990, 0.5]]}
    shorter = row("wide, rigl", "rigl", 0, 0.6) | {"curve": [[10_000, 2.0], [99_000, 0.5]]}
    found = results.curves([dense, short, shorter], rows=2)
    assert found is not None
    assert list(found.iloc[-1]) == ["1.000", "0.500", ""]


def test_rank_correlations_by_hand() -> None:
    """Gains .02, .01, .04 at one sparsity and .03 at another; Δr falls as they rise, ITOP is no order of theirs."""
    rows = [row("dense", "dense", 0, 0.60)]
    for metric, delta, itop, sparsity in (
        (0.62, 3, 0.5, 0.5),
        (0.61, 4, 0.9, 0.5),
        (0.64, 1, 0.7, 0.5),
        (0.63, 2, 0.6, 0.9),
    ):
        rows.append(
            row("wide, set", "set", 0, metric) | {"delta_r": delta, "itop": itop, "sparsity": sparsity}
        )
    found = results.correlations(rows)
    assert list(found["runs"]) == [4, 3, 1]
    assert found.loc["all", "delta_r"] == pytest.approx(-1)
    # ranks of gains 2 1 4 3, of ITOP 1 4 3 2: squared differences 1 9 1 1
    assert found.loc["all", "itop"] == pytest.approx(1 - 6 * 12 / (4 * 15))
    assert found.loc["sparsity 0.5", "itop"] == pytest.approx(-0.5)
    assert results.correlations(rows[:3]) is None, "two runs have no ranks worth a word"
    assert (
        results.correlations([row("dense", "dense", 0, 0.6), *(row("s", "set", 0, 0.6) for _ in range(4))])
        is None
    )


@pytest.mark.parametrize("name", ["cifar10", "shakespeare"])
def test_families_run_with_the_first_seed_only(name: str) -> None:
    experiment = results.EXPERIMENTS[name]
    assert len(list(experiment.arms(0))) == len(results.METHODS) + len(results.FAMILIES)
    assert tuple(experiment.arms(1)) == results.METHODS


def test_structures_share_runs_with_the_unstructured() -> None:
    unstructured, structured = results.EXPERIMENTS["cifar10"], results.EXPERIMENTS["structures"]
    assert (structured.task, structured.settings) == (unstructured.task, unstructured.settings)
    assert {"dense", "wide-rigl"} <= {arm.folder for arm in structured.arms(1)}


def test_every_arm_of_a_task_has_a_folder_of_its_own() -> None:
    arms = {arm for experiment in results.EXPERIMENTS.values() for arm in experiment.arms(0)}
    assert len({arm.folder for arm in arms}) == len(arms)


def test_without_data_the_runs_that_there_are_are_read(tmp_path: Path) -> None:
    experiment = results.EXPERIMENTS["structures"]
    assert results.results(experiment, 2, tmp_path, None) == []
    folder = tmp_path / "cifar10-wide-2of8T-transposable-1"
    folder.mkdir()
    (folder / "result.json").write_text('{"metric": 0.5}')
    assert results.results(experiment, 2, tmp_path, None) == [
        {"arm": "wide 2:8T, transposable", "seed": 1, "metric": 0.5}
    ]


def test_runs_on_record_are_read_without_their_folders_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = results.EXPERIMENTS["table2"]
    monkeypatch.setattr(results, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(results, "run", lambda *_: pytest.fail("a run that is on record was made again"))
    results.recorded.cache_clear()
    masked = row("wide, static", "static", 0, 1 / 3) | {"delta_r": 0.1 + 0.2, "train_macs": 10**18 + 1}
    results.record(experiment, [row("dense", "dense", 0, 0.6)])
    results.recorded.cache_clear()
    results.record(experiment, [masked])
    results.recorded.cache_clear()
    found = [results.read(experiment, arm, 0, tmp_path / "nowhere") for arm in results.METHODS[:2]]
    assert found == [row("dense", "dense", 0, 0.6), masked], (
        "numbers come back as they were, unknown ones not at all"
    )
    monkeypatch.setattr(
        results, "EXPERIMENTS", {"table2": results.Experiment("cifar10-ten", "", results.METHODS[:2])}
    )
    assert results.results(results.EXPERIMENTS["table2"], 1, tmp_path / "nowhere", "data") == found
    results.recorded.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", results.EXPERIMENTS)
def test_every_arm_is_one_that_the_command_takes(name: str, tmp_path: Path) -> None:
    experiment = results.EXPERIMENTS[name]
    options = shlex.split(experiment.settings)
    commands = [
        ["train", "--trust", *options, "--data", "nowhere.txt", "--dry-run", "--out", "none", *arm.options]
        for arm in experiment.arms(0)
    ]
    for run in many(commands, tmp_path):
        assert run.code == 0, run.err
        assert re.search(r"forward MACs a sample +[\d ]+", run.out)
