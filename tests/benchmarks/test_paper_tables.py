"""Tables of the paper beside our own runs: every row has its run, and both differences are taken to the right model."""

from __future__ import annotations

from pathlib import Path
from subprocess import CalledProcessError

import pytest

from iftplan.runs.results.published.entries import paper_entry
from tests.support.programs import program

results = program("results")
paper_tables = program("paper_tables")


def ours(arm: str, seed: int, metric: float) -> dict[str, object]:
    return {
        "arm": arm,
        "method": "dense" if arm == "dense" else "other",
        "seed": seed,
        "metric": metric,
        "metric_name": "accuracy",
        "nnz": 0,
        "maskable_weights": 0,
        "forward_macs": 1,
        "train_ratio": 1.5,
        "itop": 1.0,
    }


@pytest.mark.parametrize(
    ("name", "rows", "some"),
    [
        ("table2", 10, results.Arm("set", sparsity="9/10")),
        ("table3", 13, results.Arm("rigl", "factorized", sparsity="1/2")),
        ("table4", 7, results.Arm("transposable", mask="1:8T", sparsity="7/8")),
        ("table11", 15, results.Arm("densified", "lowrank", nonlinear=False, sparsity="9/10")),
    ],
)
def test_every_row_of_a_table_has_a_run_of_its_own(name: str, rows: int, some: object) -> None:
    arms = [paper_tables.arm_of(row) for row in paper_entry(name).results()]
    assert len(set(arms)) == len(arms) == rows
    assert {results.DENSE, some} <= set(arms)


def test_experiments_make_the_rows_of_their_tables() -> None:
    """What `results.py` trains are the paper's configurations, but for structures without a plan at its widths."""
    for name in ("table2", "table3"):
        published = {paper_tables.arm_of(row) for row in paper_entry(name).results()}
        assert published == set(results.EXPERIMENTS[name].every)
    controls = {paper_tables.arm_of(row) for row in paper_entry("table11").results()}
    assert set(results.CONTROLS) - controls == {results.Arm("srste", mask="2:8")}  # ours, not the paper's


def test_each_side_is_held_against_its_own_dense_model() -> None:
    runs = [ours("dense", 0, 0.5), ours("dense", 1, 0.6), ours("wide 2:8T, transposable", 0, 0.53)]
    found = paper_tables.beside(paper_entry("table11").results(), runs).set_index(["family", "sparsity"])
    row = found.loc[("wide 2:8T", "0.75")]
    # 78.4 against 77.0 there, .53 against .50 of the same seed here
    assert (row["paper"], row["paper, against dense"]) == ("78.4", "+1.4")
    assert (row["ours"], row["ours, against dense"], row["seeds"]) == ("53.00", "+3.00", "1")
    assert row["training MACs"] == "1.5000×"
    assert found.loc[("lowrank linear", "0.75"), "paper"] == "74.3"
    assert found.loc[("lowrank linear", "0.75"), "ours"] == "–"


@pytest.mark.parametrize("code", [2, 1])
def test_only_what_cannot_be_planned_is_left_out(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise CalledProcessError(code, "iftplan")

    monkeypatch.setattr(results, "run", refused)
    arm = results.Arm("transposable", mask="4:8T", sparsity="1/2")
    if code == 2:
        assert paper_tables.made(arm, 1, tmp_path, "data") == []
    else:
        with pytest.raises(CalledProcessError):
            paper_tables.made(arm, 1, tmp_path, "data")
