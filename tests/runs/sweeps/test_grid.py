"""Sweeps: every row is what the planner says of that point alone, whatever is computed once for several."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, replace
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path
from statistics import median

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iftplan as ift
from iftplan.models.spec import InputSpec, ModelSpec
from iftplan.plans.plan import Scope
from iftplan.report.table import to_csv
from iftplan.runs.settings import DataConfig, MethodConfig, PlanConfig, RunConfig, TrainingConfig
from iftplan.runs.sweeps.frame import frame, write_parquet
from iftplan.runs.sweeps.grid import (
    COLUMNS,
    PLANNED,
    TRAINED,
    Grid,
    GridPoint,
    grid_runs,
    plan_row,
    planned_rows,
    run_name,
    trained_row,
)
from iftplan.runs.sweeps.search import (
    Space,
    asking,
    hypervolume,
    planned_objectives,
    planned_search,
    shares,
    space_of,
)
from iftplan.runs.sweeps.tables import search_table, sweep_table, whole_table
from tests.support.hand_specs import chain, linear

SPEC = chain()
SPECS = {"chain": SPEC}
FAMILIES = ("wide", "parallel", "factorized", "doped", "lowrank", "nm", "none")
DISTRIBUTIONS = ("uniform", "er", "erk")
COUNTS = ("dense_macs", "macs", "nnz", "capacity", "maskable_weights")


def alone(asked: PlanConfig) -> dict[str, object]:
    """What a point is by itself, from the public function for one plan."""
    family = None if asked.transform == "none" else asked.transform
    try:
        plan = ift.plan(
            SPEC,
            family,
            asked.sparsity,
            scope=asked.scope,
            distribution=asked.distribution,
            keep_dense=asked.keep_dense,
            round_to=asked.round_to,
            mask=asked.mask or None,
        )
    except ift.IftplanError as error:
        return {"outcome": str(error)}
    return {
        "outcome": PLANNED,
        "dense_macs": plan.dense_macs(Scope.MODEL),
        "macs": plan.macs(Scope.MODEL),
        "ratio": float(plan.ratio(Scope(asked.scope))),
        "maskable_weights": plan.cardinality.maskable_weights,
        "log2_masks": plan.cardinality.log2_masks,
        "nnz": sum(layer.nnz for layer in plan.layers if layer.maskable),
    }


some = st.lists  # of choices, without doubles


@settings(max_examples=60, deadline=None)
@given(
    some(st.sampled_from(FAMILIES), min_size=1, max_size=3, unique=True),
    some(st.fractions(0, Fraction(39, 40), max_denominator=40), min_size=1, max_size=3, unique=True),
    some(st.sampled_from(DISTRIBUTIONS), min_size=1, max_size=3, unique=True),
    some(st.sampled_from(("", "block2x2", "2:4", "fan-in")), min_size=1, max_size=2, unique=True),
    st.sampled_from(("matrices", "layers", "model")),
    st.sampled_from((("first", "last"), (), ("first", "body"))),
)
def test_every_row_is_what_the_planner_says_of_that_point_alone(
    families: list[str],
    sparsities: list[Fraction],
    distributions: list[str],
    masks: list[str],
    scope: str,
    keep: tuple[str, ...],
) -> None:
    base = PlanConfig(scope=scope, keep_dense=keep)
    grid = Grid(("chain",), tuple(families), tuple(sparsities), tuple(distributions), tuple(masks), base)
    plans = list(grid.plans())
    rows = list(planned_rows(SPECS, plans))
    assert len(rows) == len(plans) == len(grid)
    for asked, row in zip(plans, rows, strict=True):
        expected = alone(asked)
        reason = str(expected.pop("outcome"))
        assert reason == row.outcome if row.outcome == PLANNED else reason.startswith(row.outcome)
        assert {key: getattr(row, key) for key in expected} == expected


def test_rows_of_a_budget_name_it() -> None:
    base = PlanConfig(budget="0.5x")
    grid = Grid(("chain",), ("wide", "none"), (Fraction(1, 2),), base=base)
    wide, plain = planned_rows(SPECS, grid.plans())
    assert (wide.budget, wide.sparsity, wide.ratio) == ("0.5x", 0.5, 0.5)
    expected = ift.plan(SPEC, "none", budget="0.5x")
    assert (plain.budget, plain.sparsity, plain.ratio) == ("0.5x", float(expected.sparsity), 0.5)
    assert plain.macs == expected.macs(Scope.MODEL)


def test_what_cannot_be_is_a_row_with_its_reason_and_neither_a_gap_nor_a_zero() -> None:
    grid = Grid(
        ("chain",), ("parallel", "wide"), (Fraction(1, 2), Fraction(9999, 10000)), ("erk",), ("", "2:4")
    )
    rows = list(planned_rows(SPECS, grid.plans()))
    assert len(rows) == 8
    refused = [row for row in rows if row.outcome != PLANNED]
    assert {row.sparsity for row in refused} == {0.5, 0.9999}
    assert any("N:M" in row.outcome or "masks" in row.outcome for row in refused)
    for row in refused:
        assert row.dense_macs == SPEC.macs
        unsaid = (row.macs, row.ratio, row.nnz, row.capacity, row.maskable_weights, row.log2_masks)
        assert unsaid == (None,) * 6


def test_a_layer_that_does_not_exist_is_an_error_and_no_row() -> None:
    plans = Grid(("chain",), ("wide",), (Fraction(1, 2),), base=PlanConfig(keep_dense=("bodi",))).plans()
    with pytest.raises(ift.InputError, match="Did you mean 'body'"):
        list(planned_rows(SPECS, plans))


# --- exact, however large -----------------------------------------------------------------------------

SIDE = 2**20 + 7
TOKENS = 2**26 + 1
HUGE = ModelSpec(
    "huge",
    (InputSpec((1,)),),
    (linear("a", SIDE, SIDE, TOKENS), linear("b", 3, 5, first=True), linear("c", 5, 7, last=True)),
)


def test_counts_beyond_64_bits_stay_exact_in_rows_csv_and_parquet(tmp_path: Path) -> None:
    grid = Grid(("huge",), ("none",), (Fraction(1, 2),), base=PlanConfig(keep_dense=("b", "c")))
    rows = list(planned_rows({"huge": HUGE}, grid.plans()))
    dense = SIDE * SIDE * TOKENS + 15 + 35
    assert dense > 2**64
    assert rows[0].dense_macs == dense
    table = frame(rows)
    assert list(table["dense_macs"]) == [dense]
    (read,) = csv.DictReader(io.StringIO(to_csv(whole_table(rows))))
    assert int(read["dense_macs"]) == dense
    write_parquet(table, str(tmp_path / "huge.parquet"))
    assert list(pd.read_parquet(tmp_path / "huge.parquet")["dense_macs"]) == [Decimal(dense)]


def test_counts_that_fit_are_whole_numbers_also_where_some_are_missing(tmp_path: Path) -> None:
    grid = Grid(("chain",), ("nm", "wide"), (Fraction(1, 2), Fraction(2, 3)))
    rows = list(planned_rows(SPECS, grid.plans()))
    assert {row.outcome == PLANNED for row in rows} == {True, False}
    table = frame(rows)
    write_parquet(table, str(tmp_path / "table.parquet"))
    for found in (table, pd.read_parquet(tmp_path / "table.parquet")):
        assert list(found.columns) == list(COLUMNS)
        for name in COUNTS:
            assert str(found[name].dtype) == "Int64"
            assert [None if pd.isna(v) else int(v) for v in found[name]] == [getattr(r, name) for r in rows]
    text = to_csv(whole_table(rows))
    assert text == table.to_csv(index=False, lineterminator="\n")
    assert "0.6666666666666666" in text


def test_a_frame_of_nothing_has_its_columns() -> None:
    assert list(frame([]).columns) == list(COLUMNS)


# --- names and rows of runs -----------------------------------------------------------------------------


def test_names_of_runs_tell_apart_all_that_numbers_follow_from_and_nothing_else() -> None:
    run = RunConfig()
    others = [
        replace(run, seed=1),
        replace(run, plan=PlanConfig(sparsity="0.5")),
        replace(run, plan=PlanConfig(mask="2:8")),
        replace(run, training=TrainingConfig(steps=7)),
        replace(run, data=DataConfig(path="elsewhere")),  # where other data may be
    ]
    assert len({run_name(other) for other in (run, *others)}) == 6
    assert run_name(replace(run, training=TrainingConfig(threads=3))) == run_name(run)
    assert "/" not in run_name(replace(run, plan=PlanConfig(model="some/dir/net.py:build", sparsity="1/3")))


def test_a_grid_has_one_run_for_each_point_method_and_seed_and_one_dense_control_for_each_seed() -> None:
    grid = Grid(("zoo:digits-cnn",), ("wide", "doped"), (Fraction(1, 2), Fraction(3, 4)))
    runs = grid_runs(grid, RunConfig(), ("rigl", "dense"), (0, 1, 2))
    methods = [run.method.name for run in runs.values()]
    assert methods.count("rigl") == 2 * 2 * 3
    assert methods.count("dense") == 3
    assert {run.plan.transform for run in runs.values() if run.method.name == "dense"} == {"none"}


RESULT = {
    "transform": "wide", "sparsity": 0.5, "forward_macs": 90, "dense_forward_macs": 100, "nnz": 40,
    "maskable_weights": 80, "train_macs": 2**70, "dense_train_macs": 7, "metric_name": "accuracy",
    "metric": 0.5, "data": "digits",
}  # fmt: skip


def test_what_a_run_found_stands_in_its_row() -> None:
    asked = PlanConfig("", "chain", "wide", "0.5")
    row = plan_row(asked, ift.plan(SPEC, "wide", "0.5"))
    found = trained_row(row, RunConfig(seed=3), RESULT, "runs/a")
    assert (found.outcome, found.method, found.seed, found.run) == (TRAINED, "rigl", 3, "runs/a")
    assert (found.macs, found.dense_macs, found.train_macs, found.value) == (90, 100, 2**70, 0.5)
    assert found.log2_masks == row.log2_masks
    opened = RunConfig(method=MethodConfig(name="densified"))
    wide = trained_row(row, opened, {**RESULT, "method": "densified", "forward_macs": 205}, "runs/b")
    assert (wide.ratio, wide.sparsity) == (2.05, 0.5), "without masks it costs what it costs"


# --- searches ---------------------------------------------------------------------------------------------


def cells(points: list[tuple[int, int]], reference: tuple[int, int]) -> int:
    """The dominated area, counted in unit cells."""
    box = product(range(reference[0]), range(reference[1]))
    return sum(any(x <= i and y <= j for x, y in points) for i, j in box)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_the_hypervolume_is_the_area_that_is_dominated(
    points: list[tuple[int, int]], reference: tuple[int, int]
) -> None:
    assert hypervolume(points, reference) == cells(points, reference)


def test_hypervolumes_are_shares_of_the_box_of_all_points() -> None:
    found = shares({"good": [(0, 0), (10, 1000)], "bad": [(10, 500)], "none": []})
    assert found == {"good": 1.0, "bad": 0.0, "none": 0.0}
    assert shares({"one": [(1, 1)]}) == {"one": 0.0}


GRID = Grid(("chain",), ("wide", "none", "doped"), (Fraction(1, 3), Fraction(9, 10)), ("uniform", "erk"))


def test_random_trials_follow_from_the_seed_and_their_number() -> None:
    space = space_of(GRID)
    ten = planned_search(space, "random", 10, SPECS)
    assert planned_search(space, "random", 5, SPECS) == ten[:5]
    assert len({row.sparsity for row in ten}) == 10
    assert planned_search(space, "random", 5, SPECS, seed=1) != ten[:5]
    assert {row.transform for row in ten} <= {"wide", "none", "doped"}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_stays_inside_and_gives_a_row_for_each_trial(sampler: str) -> None:
    rows = planned_search(space_of(GRID), sampler, 25, SPECS)  # type: ignore[arg-type]
    assert len(rows) == 25
    assert all(1 / 3 <= row.sparsity <= 0.9 for row in rows)
    assert len({astuple(row) for row in rows}) > 10


def test_a_search_beats_chance_in_the_median_of_seeds() -> None:
    space, seeds = space_of(GRID), range(5)
    found = {
        f"{sampler} {seed}": [
            point
            for row in planned_search(space, sampler, 48, SPECS, seed=seed)  # type: ignore[arg-type]
            if (point := planned_objectives(row))
        ]
        for sampler, seed in product(("tpe", "random"), seeds)
    }
    share = shares(found)
    search, chance = (median(share[f"{name} {seed}"] for seed in seeds) for name in ("tpe", "random"))
    assert search > chance


@pytest.mark.parametrize(
    ("search", "chance", "lost"), [(0.2, 0.1, False), (0.1, 0.1, True), (0.1, 0.2, True)]
)
def test_a_search_that_did_not_beat_chance_is_said_to(search: float, chance: float, lost: bool) -> None:
    found = search_table({"tpe": search, "random": chance}, 9, "axes")
    notes = found.notes
    assert float(found.rows[0][-1]) == pytest.approx(search - chance, abs=1e-4)
    assert any("tpe did not beat random" in note for note in notes) == lost
    assert search_table({"random": chance}, 9, "axes").notes == ("axes",)


def test_sparsities_are_read_exactly_and_stay_inside_when_rounded() -> None:
    space = Space({}, Fraction(1, 3), Fraction(2, 3))
    params = {"model": "chain", "transform": "wide", "distribution": "uniform", "mask": ""}
    assert space.plan({**params, "sparsity": 0.33333333333333331}).sparsity == "1/3"
    assert space.plan({**params, "sparsity": 0.12345678 + 0.3}).sparsity == "0.4235"
    assert asking(space, "random", 0)


# --- what is shown -----------------------------------------------------------------------------------------


def test_a_long_table_says_how_many_rows_it_leaves_out() -> None:
    rows = [GridPoint("m", "wide", i / 100, "uniform", "unstructured", "layers", macs=i) for i in range(99)]
    table = sweep_table(rows)
    assert len(table.rows) == 40
    assert table.notes == ("59 rows more; -o FILE.csv holds them all",)
    assert (
        table.title == "model m, transform wide, distribution uniform, structure unstructured, scope layers"
    )
    assert len(whole_table(rows).rows) == 99


def test_a_reason_of_several_rows_stands_below_the_table_once() -> None:
    point = GridPoint("zoo:x", "wide", 0.5, "uniform", "unstructured", "layers")
    outcomes = (PLANNED, "no data.", "too small.", "no data.", TRAINED, PLANNED)
    rows = [replace(point, seed=seed, outcome=outcome) for seed, outcome in enumerate(outcomes)]
    table = sweep_table(rows)
    assert [row[-1] for row in table.rows] == [
        *("planned", "no result (1)", "too small.", "no result (1)", "trained", "planned")
    ]
    assert table.notes == ("no result (1): no data.",)
    assert [row[COLUMNS.index("outcome")] for row in whole_table(rows).rows] == list(outcomes)
