"""The paper's tables: published numbers against our own arithmetic, and rows against runs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from iftplan.base.errors import InputError
from iftplan.models.spec import ModelSpec
from iftplan.models.zoo.specs import zoo_spec
from iftplan.plans.plan import Scope
from iftplan.runs.document import parse_run, read_recipe
from iftplan.runs.results.published.arithmetic import paper_rows
from iftplan.runs.results.published.document import contents_document, entry_document
from iftplan.runs.results.published.entries import PAPER, Arithmetic, paper_entry
from iftplan.runs.results.published.language import (
    FLOPS_PER_STEP,
    MEDIUM,
    SMALL,
    sizings,
    training_rows,
    wide_plan,
)
from iftplan.runs.results.published.results import all_published, published_results
from iftplan.runs.results.published.settings import setting_rows
from iftplan.runs.results.published.tables import check_rounding, contents_table, entry_table
from iftplan.runs.settings import RunConfig
from iftplan.runs.sweeps.grid import TRAINED, GridPoint, run_name
from iftplan.runs.sweeps.reproduction import (
    Mean,
    ReproducedRow,
    reproduced_rows,
    row_runs,
)
from iftplan.runs.sweeps.reproduction_tables import reproduction_table


def read(source: str) -> ModelSpec:
    found = zoo_spec(source, (), widths=True, heads="number")
    assert found is not None
    return found


def digits(_: object) -> RunConfig:
    return parse_run(read_recipe("digits"), "digits")


VALUES: dict[str, dict[float, str]] = {
    "table2": {0: "77.0", 50: "78.5 78.8 79.1", 75: "78.3 79.2 79.5", 90: "78.2 79.8 80.1"},
    "table3": {0: "77.0", 50: "79.1 77.8 77.9 78.2", 75: "79.5 78.4 79.1 77.8", 90: "80.1 78.9 78.2 76.9"},
    "table4": {0: "77.0", 50: "79.1 77.1", 75: "79.5 78.4", 87.5: "78.1", 90: "80.1"},
    "table5": {0: "72.4 73.5 79.8", 50: "73.4 74.6 80.3", 75: "73.7 74.8 80.6"},
    "table8": {0: "20.8", 50: "20.4", 75: "22.1"},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_table_has_the_values_that_are_printed_in_it(name: str) -> None:
    found: dict[float, list[float]] = {}
    for row in paper_entry(name).results():
        found.setdefault(float(row.sparsity) * 100, []).append(row.value)
    wanted = {sparsity: sorted(map(float, text.split())) for sparsity, text in VALUES[name].items()}
    assert {sparsity: sorted(values) for sparsity, values in found.items()} == wanted


def test_every_published_value_of_the_paper_is_in_a_table() -> None:
    shown = {row for entry in PAPER.values() for row in entry.results()}
    elsewhere = {row for row in all_published() if row not in shown}
    assert {row.table for row in elsewhere} == {"15"}, "GPT-3 Medium, whose row is computed in table15"


def test_details_agree_with_the_results_they_detail() -> None:
    """Table 7 is printed to one digit, tables 12 and 13 to two."""
    first = {(r.task, r.sparsity, r.metric): r.value for r in published_results() if r.table == "7"}
    details = {(r.task, r.sparsity, r.metric): r.value for r in all_published() if r.table in ("12", "13")}
    assert len(first) == 8
    for key, value in first.items():
        assert abs(details[key] - value) <= 0.05 + 1e-9, key


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("table2", "table2"),
        ("Table 2", "table2"),
        ("2", "table2"),
        ("Fig. 1", "figure1"),
        ("fig1", "figure1"),
        ("TABLE15", "table15"),
    ],
)
def test_names_as_people_write_them(text: str, name: str) -> None:
    assert paper_entry(text).name == name


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'table9'"):
        paper_entry("table99")


# --- arithmetic -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table9", "table11", "table6", "figure1"])
def test_every_network_costs_what_its_dense_model_does_in_the_papers_scope(name: str) -> None:
    rows = paper_rows(paper_entry(name), read)
    for row in rows:
        assert row.counted is not None
        dense = row.counted.plan.dense_macs(row.counted.setting.scope)
        assert 0 <= row.counted.residual <= dense / 50_000, row.published
        if row.published.transform == "dense":
            assert (row.against_dense, row.counted.residual, row.counted.ratio) == (None, 0, 1)
    assert max(abs(row.against_dense or 0) for row in rows) < 4


def test_search_spaces_grow_as_table_1_says() -> None:
    rows = [r for r in paper_rows(paper_entry("table3"), read) if r.counted is not None]
    spaces = {
        (r.published.transform, r.published.sparsity): r.counted.plan.cardinality.maskable_weights
        for r in rows
        if r.counted is not None
    }
    weights = spaces["doped", Fraction(1, 2)]
    for sparsity, times in ((Fraction(1, 2), 2), (Fraction(3, 4), 4), (Fraction(9, 10), 10)):
        assert spaces["parallel", sparsity] == times * weights
        assert spaces["doped", sparsity] == weights
        assert spaces["wide", sparsity] == pytest.approx(times * weights, rel=0.01)
        assert spaces["factorized", sparsity] == pytest.approx(times * weights, rel=0.01)


def test_the_closed_form_of_a_gpt_is_what_the_bundled_models_cost() -> None:
    for model, decoder in (("zoo:gpt3-small", SMALL), ("zoo:gpt3-medium", MEDIUM)):
        spec = read(model)
        assert decoder.macs() == spec.macs
        planned = wide_plan(spec, Fraction(3, 4))
        assert decoder.matrix_macs() == planned.dense_macs(Scope.MATRICES)


def test_table_15_is_met_within_a_fifth_of_a_percent() -> None:
    rows = training_rows(read)
    assert len(rows) == 3
    for row in rows:
        assert abs(row.deviation) < Fraction(2, 1000), row
        assert abs(row.total / row.published_total - 1) < Fraction(2, 1000)
        assert row.sequences == pytest.approx(2.2836e6, rel=1e-4)
    small, wide, medium = rows
    assert float(wide.counted / small.counted) == pytest.approx(1.1745, abs=5e-5)
    assert wide.closed is not None
    assert float(wide.closed / small.counted) == pytest.approx(1.1685, abs=5e-5)
    assert float(medium.published / wide.published) == pytest.approx(2.41, abs=0.005), (
        "2.4× in the paper's text"
    )


def test_what_table_15_has_more_is_the_same_for_each_channel_of_both_dense_models() -> None:
    rows = [row for row in training_rows(read) if not row.sparsity]
    for row, decoder in zip(rows, (SMALL, MEDIUM), strict=True):
        more = (row.published - row.counted) / FLOPS_PER_STEP
        each = more / (decoder.layers * decoder.context * decoder.hidden)
        rounding = Fraction(5, 10**5) * row.published / 10 / FLOPS_PER_STEP
        assert float(each) == pytest.approx(
            24, abs=0.2 + float(rounding / (decoder.layers * decoder.context * decoder.hidden))
        )


def test_table_14_under_its_three_roundings() -> None:
    found = {(s.rounding, s.sparsity): s for s in sizings(read)}
    half, quarter = Fraction(1, 2), Fraction(3, 4)
    assert [(s.hidden, s.feed_forward) for (_, p), s in found.items() if p == half] == [
        (1092, 4344), (1086, 4344), (1087, 4345),
    ]  # fmt: skip
    assert found["published", half].hidden % 12 == 0
    assert float(found["published", half].matrices) == pytest.approx(1.0072, abs=5e-5)
    assert (
        found["floor", half].matrices < 1 == found["cover", half].matrices < found["published", half].matrices
    )
    assert len({(s.hidden, s.matrices, s.model) for (_, p), s in found.items() if p == quarter}) == 1


def test_settings_that_the_paper_prints_are_those_of_the_bundled_recipes() -> None:
    for row in setting_rows("table18"):
        assert row.here == pytest.approx(row.published, rel=0.005), row
    (bert,) = setting_rows("table16")
    pooler, next_sentence = 512 * 512 + 512, 2 * 512 + 2
    assert f"{(bert.here + pooler + next_sentence) / 1e6:.1f}" == f"{bert.published / 1e6:.1f}"
    assert pooler + next_sentence == 263_682, "as the note says"


def test_widths_rounded_down_are_those_of_the_code_and_closed_too() -> None:
    rows = paper_rows(paper_entry("table2"), read, "floor")
    for row in rows:
        assert row.counted is not None
        assert 0 <= row.counted.residual < 300
        if row.published.transform == "wide":
            first = {Fraction(1, 2): 90, Fraction(3, 4): 128, Fraction(9, 10): 202}[row.published.sparsity]
            assert first in row.counted.plan.widths.values()


def test_published_widths_are_those_of_gpt_alone() -> None:
    with pytest.raises(InputError, match="table14 and table15"):
        entry_table(paper_entry("table2"), read, "published")
    rows = entry_table(paper_entry("table14"), read, "floor").rows
    assert [row[0] for row in rows] == ["dense", "floor", "floor"]
    assert [row[0] for row in entry_table(paper_entry("table14"), read, "cover").rows] == [
        "dense",
        "cover",
        "cover",
    ]


@pytest.mark.parametrize("name", PAPER)
def test_every_table_prints_and_has_a_document(name: str) -> None:
    entry = paper_entry(name)
    table = entry_table(entry, read)
    document: dict[str, Any] = dict(entry_document(entry, read, table))
    assert table.title and document["name"] == name
    if entry.arithmetic is Arithmetic.RESULTS:
        assert len(document["rows"]) == len(table.rows) == len(entry.results())
        for row, found in zip(document["rows"], entry.results(), strict=True):
            assert row["published"] == found.value


def test_the_list_has_every_table_and_figure() -> None:
    names = [f"table{i}" for i in range(1, 20)] + [f"figure{i}" for i in range(1, 4)]
    assert [row[0] for row in contents_table().rows] == names
    assert [entry["name"] for entry in contents_document()["entries"]] == names


# --- runs -----------------------------------------------------------------------------------------------


def test_rows_become_runs_that_differ_as_the_rows_do() -> None:
    rows = row_runs(paper_entry("table11"), digits, (0, 1))
    assert len(rows) == 15
    runs = {run_name(run): run for row in rows for run in row.runs.values()}
    assert len(runs) == 2 * len(rows), "no two rows are one run"
    found = {row.published: row.runs[0] for row in rows}
    for published, run in found.items():
        assert run.plan.mask == published.mask
        assert run.plan.nonlinear is (published.nonlinear is not False)
        if published.transform == "dense":
            assert (run.method.name, run.plan.transform) == ("dense", "none")
        elif published.transform == "lowrank":
            assert run.method.name == "densified"
        elif published.mask:
            assert run.method.name == "transposable"


def test_rows_of_one_model_alone() -> None:
    rows = row_runs(paper_entry("table6"), digits, (0,), "ResNet-34")
    assert [row.published.model for row in rows] == ["ResNet-34"] * 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("table17", "two runs"),
        ("table14", "no results"),
        ("figure2", "no results"),
        ("table7", "no recipe"),
        ("table12", "no recipe"),
    ],
)
def test_tables_that_cannot_be_trained_say_why(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        row_runs(paper_entry(name), digits, (0,))


def reproduced(values: dict[tuple[str, int], float], failed: str = "") -> tuple[ReproducedRow, ...]:
    rows = row_runs(paper_entry("table8"), digits, (0, 1))
    points = {}
    for row in rows:
        for seed, run in row.runs.items():
            value = values.get((str(row.published.sparsity), seed))
            points[run_name(run)] = GridPoint(
                "zoo:digits-cnn", "wide", 0.5, "uniform", "unstructured", "layers",
                outcome=failed if value is None else TRAINED, value=value, metric="accuracy", train_macs=30, dense_train_macs=20,
            )  # fmt: skip
    return reproduced_rows(rows, points)


def numbers(mean: Mean | None) -> tuple[float, float | None, int]:
    assert mean is not None
    return mean.value, mean.error, mean.seeds


def test_means_and_paired_differences() -> None:
    found = reproduced(
        {("0", 0): 0.5, ("0", 1): 0.7, ("1/2", 0): 0.6, ("1/2", 1): 0.9, ("3/4", 0): 0.4}, "diverged"
    )
    dense, half, quarter = found
    assert numbers(dense.found) == pytest.approx((0.6, 0.1, 2))
    assert dense.against_dense is None
    assert numbers(half.against_dense) == pytest.approx((0.15, 0.05, 2))
    assert half.train_ratio == 1.5
    assert quarter.against_dense is not None
    assert (round(quarter.against_dense.value, 9), quarter.against_dense.error) == (-0.1, None)
    assert [row.outcome for row in found] == ["", "", "diverged"]
    table = reproduction_table(paper_entry("table8"), found)
    assert table.headings[-1] == "not trained because"
    assert table.rows[1][5:8] == ("75.00 ± 15.00", "+15.00 ± 5.00", "2")


def test_rows_without_any_result_are_empty_and_never_zero() -> None:
    found = reproduced({}, "stopped")
    assert all(row.found is None and row.train_ratio is None and row.outcome == "stopped" for row in found)
    assert reproduction_table(paper_entry("table8"), found).rows[0][5:8] == ("", "", "")


@pytest.mark.parametrize(
    ("name", "rounding", "says"),
    [
        ("table1", "floor", "table1 has no widths that could be rounded"),
        ("figure3", "cover", "figure3 has no widths that could be rounded"),
        ("table15", "cover", "counted at the published widths or at floor"),
    ],
)
def test_a_rounding_that_changes_nothing_is_refused(name: str, rounding: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_rounding(paper_entry(name), rounding)
