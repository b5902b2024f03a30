"""Costs against budgets and baselines, in numbers and in sentences."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import iftplan as ift
from iftplan.base.units import Convention
from iftplan.checks import revisions
from iftplan.checks.baseline import Baseline, baseline_document, parse_baseline
from iftplan.checks.check import Costs, check_models
from iftplan.checks.configuration import BASELINE_FILE, Allowance, Bound, ConfiguredModel, DriftPolicy
from iftplan.checks.configuration_file import read_config
from iftplan.checks.findings import CheckReport, ModelCheck, Quantity, Status, check_document
from iftplan.checks.page import check_page
from iftplan.checks.tables import check_table, drift_tables
from iftplan.checks.verdicts import check_model
from iftplan.models.cost import ModelCost
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.plans.audit.audit import layer_macs
from tests.support.processes.repositories import repository

MODEL = ConfiguredModel("net", "net.py:build")
COST = ModelCost({"conv": 600, "fc": 400}, {"conv": 60, "fc": 44, "norm": 6})


def bounded(*bounds: Bound, tolerance: Fraction = Fraction(0)) -> ConfiguredModel:
    return replace(MODEL, bounds=bounds, tolerance=tolerance)


def test_a_dense_network_that_costs_as_much_as_its_plan_is_told_apart(tmp_path: Path) -> None:
    plan = ift.plan("zoo:digits-cnn", "wide", "3/4")
    ift.save(plan, str(tmp_path / "wide.json"))
    (tmp_path / "iftplan.toml").write_text(
        '[models.dense]\nsource = "zoo:digits-cnn"\nbudget.equal = ["wide.json"]\n[models.planned]\nsource = "wide.json"\nbudget.equal = ["wide.json"]\n',
        encoding="utf-8",
    )
    config = read_config(tmp_path / "iftplan.toml")
    planned = ModelCost({layer.name: layer.macs for layer in plan.layers}, {})
    dense = ModelCost({layer.name: layer.dense_macs for layer in plan.layers}, {})
    report = check_models(config, config.models, Costs({"dense": dense, "planned": planned}), None)
    assert [model.status for model in report.models] == [Status.PASSED, Status.PASSED]
    told = "every layer costs what it does in the dense network that wide.json was made for: the plan was not applied"
    assert [note.startswith(told) for model in report.models for note in model.notes] == [True]
    assert len(report.models[0].notes) == 1
    assert [row[-1] for row in check_table(report).rows if row[0]] == [
        "passed, but wide.json is not applied to it",
        "passed",
    ]
    headlines = [section.headline for section in check_page(report).sections]
    assert headlines == ["within its budget, but wide.json is not applied to it", "within its budget"]


def test_a_layer_whose_weight_its_parent_computes_with_is_told_apart_too(tmp_path: Path) -> None:
    """Attention is one layer of a measured network, and two of a plan."""
    network = torch.nn.Sequential(
        torch.nn.Embedding(9, 8),
        torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.nn.Linear(8, 4),
    )
    plan = ift.plan(network, "wide", "3/4", inputs="1x3:int64")
    ift.save(plan, str(tmp_path / "wide.json"))
    (tmp_path / "iftplan.toml").write_text(
        '[models.net]\nsource = "n.py:net"\nbudget.equal = ["wide.json"]\n', encoding="utf-8"
    )
    config = read_config(tmp_path / "iftplan.toml")
    macs = layer_macs(measure(network, [InputSpec((1, 3), "int64")]), {})
    assert "1.self_attn" in macs and "1.self_attn.in_proj_weight" not in macs
    report = check_models(config, config.models, Costs({"net": ModelCost(macs, {})}), None)
    assert report.models[0].unapplied == ("wide.json",)


def test_a_reference_with_an_uncalled_module_is_not_measured(tmp_path: Path) -> None:
    def outcome(allow: str) -> ModelCheck:
        (tmp_path / "iftplan.toml").write_text(
            f'[models.base]\nsource = "n.py:base"\n{allow}\n[models.mine]\nsource = "n.py:mine"\nbudget.equal = ["base"]\n',
            encoding="utf-8",
        )
        config = read_config(tmp_path / "iftplan.toml")
        found = {"base": replace(COST, uncalled_modules=("aux",)), "mine": COST}
        return check_models(config, config.models, Costs(found), None).models[1]

    assert outcome("").problems == ("base could not be measured, so there is no ratio to it.",)
    assert outcome('allow = [{module = "aux", reason = "training only"}]').status is Status.PASSED


def test_a_baseline_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "iftplan.toml").write_text(
        'baseline = "ci/costs.json"\n[models.net]\nsource = "n.py:net"\n', encoding="utf-8"
    )
    config = read_config(tmp_path / "iftplan.toml")
    report = check_models(config, config.models, Costs({"net": COST}), None)
    assert report.notes == (
        "there is no ci/costs.json, which iftplan.toml names as its baseline; nothing was compared with it",
    )
    usual = replace(config, baseline=BASELINE_FILE)
    assert check_models(usual, usual.models, Costs({"net": COST}), None).notes == ()


def baseline(
    macs: dict[str, int], parameters: dict[str, int] | None = None, *, saved: bool = True
) -> Baseline:
    return Baseline("before.json", {"net": ModelCost(macs, parameters or {})}, {"net": ()}, saved)


@pytest.mark.parametrize(
    ("bound", "tolerance", "passes"),
    [
        (Bound(Quantity.MACS, Fraction(1000)), 0, True),
        (Bound(Quantity.MACS, Fraction(999)), 0, False),
        (Bound(Quantity.MACS, Fraction(999)), Fraction(1, 999), True),
        (Bound(Quantity.MACS, Fraction(998)), Fraction(1, 999), False),
        (Bound(Quantity.FLOPS, Fraction(2000)), 0, True),
        (Bound(Quantity.FLOPS, Fraction(1998)), 0, False),
        (Bound(Quantity.PARAMETERS, Fraction(110)), 0, True),
        (Bound(Quantity.PARAMETERS, Fraction(109)), 0, False),
        (Bound(Quantity.RATIO, Fraction(1, 2), "teacher"), 0, True),
        (Bound(Quantity.RATIO, Fraction(1, 3), "teacher"), 0, False),
        (Bound(Quantity.RATIO, Fraction(1), "teacher", equal=True), 0, False),
        (Bound(Quantity.RATIO, Fraction(1), "teacher", equal=True), Fraction(1, 2), True),
        (Bound(Quantity.RATIO, Fraction(1), "teacher", equal=True), Fraction(499, 1000), False),
    ],
)  # fmt: skip
def test_a_limit_is_kept_up_to_its_tolerance(bound: Bound, tolerance: int | Fraction, passes: bool) -> None:
    check = check_model(bounded(bound, tolerance=Fraction(tolerance)), COST, references={"teacher": 2000})
    assert check.status is (Status.PASSED if passes else Status.FAILED)
    assert bool(check.problems) is not passes


def test_an_excess_names_the_layers_behind_it() -> None:
    tight = bounded(Bound(Quantity.MACS, Fraction(800)))
    alone = check_model(tight, COST)
    assert alone.problems == ("1 000 MACs, 800 allowed (+25 %); the largest layers: conv: 600, fc: 400.",)
    compared = check_model(
        replace(tight, drift=DriftPolicy.REPORT), COST, baseline=baseline({"conv": 300, "fc": 400})
    )
    assert compared.problems == (
        "1 000 MACs, 800 allowed (+25 %); since before.json: layer conv 300 → 600 (+300).",
    )


def test_drift_names_what_was_added_removed_and_changed() -> None:
    check = check_model(
        MODEL, COST, baseline=baseline({"stem": 100, "fc": 500}, {"conv": 60, "fc": 44, "norm": 6})
    )
    assert check.status is Status.FAILED
    assert check.problems == (
        "+400 MACs since before.json (600 → 1 000, +66.7 %); layer conv added (+600), layer fc 500 → 400 (−100), layer stem removed (−100).",
    )


@pytest.mark.parametrize(
    ("before", "policy", "saved", "passes"),
    [
        (1000, None, True, True),
        (900, None, True, False),
        (1100, None, True, False),
        (900, None, False, True),  # a revision is nobody's promise
        (900, DriftPolicy.ANY, False, False),
        (900, DriftPolicy.INCREASE, True, False),
        (1100, DriftPolicy.INCREASE, True, True),
        (900, DriftPolicy.REPORT, True, True),
    ],
)
def test_drift_policies(before: int, policy: DriftPolicy | None, saved: bool, passes: bool) -> None:
    same = dict(COST.parameters)
    check = check_model(
        replace(MODEL, drift=policy), COST, baseline=baseline({"conv": before}, same, saved=saved)
    )
    assert check.status is (Status.PASSED if passes else Status.FAILED)
    assert check.drift is not None
    assert check.drift.macs.difference == 1000 - before


@pytest.mark.parametrize("policy, fails", [(None, True), (DriftPolicy.REPORT, False)])
def test_parameters_have_a_policy_of_their_own(policy: DriftPolicy | None, fails: bool) -> None:
    check = check_model(
        replace(MODEL, drift=DriftPolicy.INCREASE, parameter_drift=policy),
        COST,
        baseline=baseline(dict(COST.macs), {"conv": 60, "fc": 44}),
    )
    assert (check.status is Status.FAILED) == fails


@pytest.mark.parametrize(
    "policy, said", [(DriftPolicy.INCREASE, True), (None, False), (DriftPolicy.REPORT, False)]
)
def test_drift_without_a_baseline_is_said_not_to_be_checked(policy: DriftPolicy | None, said: bool) -> None:
    check = check_model(replace(MODEL, drift=policy), COST)
    assert check.status is Status.PASSED
    assert any('drift = "increase" was not checked' in note for note in check.notes) == said


def test_parameters_that_cost_no_macs_drift_too() -> None:
    check = check_model(MODEL, COST, baseline=baseline(dict(COST.macs), {"conv": 60, "fc": 44}))
    assert check.problems == ("+6 parameters since before.json (104 → 110, +5.77 %); layer norm added (+6).",)


def test_macs_and_parameters_that_drift_are_one_change() -> None:
    before = {**COST.macs, "fc": 300, "old": 25}
    check = check_model(MODEL, COST, baseline=baseline(before, {"conv": 60, "fc": 44}))
    assert check.problems == (
        "+75 MACs since before.json (925 → 1 000, +8.11 %) and +6 parameters (104 → 110, +5.77 %); layer fc 300 → 400 (+100), layer old removed (−25); parameters alone: layer norm added (+6).",
    )
    (section,) = check_page(CheckReport("iftplan.toml", "before.json", (check,))).sections
    assert [dict(total.cells)["quantity"] for total in section.totals] == ["MACs", "parameters"]
    assert "parameters" not in dict(section.summary)


LAYERS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**6), min_size=1)


@given(LAYERS, LAYERS)
def test_drift_is_a_change_of_the_total_and_the_first_layer_moved_most(
    before: dict[str, int], after: dict[str, int]
) -> None:
    check = check_model(MODEL, ModelCost(after, {}), baseline=baseline(before))
    assert (check.status is Status.FAILED) == (sum(before.values()) != sum(after.values()))
    assert check.drift is not None
    moved = {n: abs(after.get(n, 0) - before.get(n, 0)) for n in {*before, *after}}
    if check.problems:
        assert f"layer {check.drift.macs.changes[0].name} " in check.problems[0]
        assert moved[check.drift.macs.changes[0].name] == max(moved.values())


@given(LAYERS, st.integers(1, 10**7), st.fractions(0, 2))
def test_a_limit_is_kept_exactly_where_arithmetic_says(
    layers: dict[str, int], allowed: int, tolerance: Fraction
) -> None:
    check = check_model(
        bounded(Bound(Quantity.MACS, Fraction(allowed)), tolerance=tolerance), ModelCost(layers, {})
    )
    assert (check.status is Status.PASSED) == (sum(layers.values()) <= allowed * (1 + tolerance))


def test_what_is_unknown_is_no_pass_unless_somebody_vouches() -> None:
    dim = replace(COST, unknown_ops={"my::scan": 2}, uncalled_modules=("probe",))
    check = check_model(bounded(Bound(Quantity.MACS, Fraction(10**9))), dim)
    assert check.status is Status.UNMEASURED
    assert "iftplan has no cost formula for my::scan (2 calls)." in check.problems[0]
    assert "probe has weights" in check.problems[1]
    model = replace(
        MODEL, allowed=(Allowance("probe", "", "training only"), Allowance("my::scan", "3", "by hand"))
    )
    check = check_model(
        replace(model, allowed=(Allowance("prob", "", "training only"),)), replace(dim, unknown_ops={})
    )
    assert check.status is Status.UNMEASURED
    assert check.notes == ("allowed, and not needed: no module prob was left uncalled",)
    check = check_model(model, replace(dim, unknown_ops={}))
    assert check.status is Status.PASSED
    assert check.notes == (
        "allowed: probe is not called, because training only",
        "allowed: my::scan costs 3 MACs a call, because by hand",
    )


@pytest.mark.parametrize(
    ("reference", "known", "says"),
    [
        ("baseline", {}, "needs one that has net; save it with iftplan check --save-baseline"),
        ("teacher", {}, "teacher could not be measured"),
        ("teacher", {"teacher": 0}, "teacher costs no MACs"),
    ],
)
def test_a_ratio_to_nothing_is_no_pass(reference: str, known: dict[str, int], says: str) -> None:
    check = check_model(bounded(Bound(Quantity.RATIO, Fraction(1), reference)), COST, references=known)
    assert check.status is Status.INVALID
    assert says in check.problems[0]


def test_other_inputs_and_a_model_without_a_baseline_are_told() -> None:
    other = Baseline("before.json", {"net": COST}, {"net": ("8x16",)})
    assert check_model(MODEL, COST, baseline=other).notes == ("before.json was measured with 8x16",)
    (note,) = check_model(replace(MODEL, name="new"), COST, baseline=other).notes
    assert "nothing to compare with in before.json; iftplan check --save-baseline" in note


@pytest.mark.parametrize(
    ("statuses", "ends"),
    [
        ((), Status.PASSED),
        ((Status.PASSED, Status.PASSED), Status.PASSED),
        ((Status.UNMEASURED, Status.FAILED, Status.INVALID, Status.STALE), Status.FAILED),
        ((Status.UNMEASURED, Status.STALE, Status.INVALID), Status.INVALID),
        ((Status.UNMEASURED, Status.STALE), Status.STALE),
        ((Status.PASSED, Status.UNMEASURED), Status.UNMEASURED),
    ],
)  # fmt: skip
def test_the_weightiest_outcome_decides(statuses: tuple[Status, ...], ends: Status) -> None:
    models = tuple(ModelCheck(str(i), "x", (), status) for i, status in enumerate(statuses))
    assert CheckReport("c", "", models).status is ends


def test_exit_codes_are_those_of_the_command_line() -> None:
    assert [
        s.exit_code for s in (Status.PASSED, Status.FAILED, Status.INVALID, Status.UNMEASURED, Status.STALE)
    ] == [0, 1, 2, 3, 4]


def test_the_terminal_has_a_row_for_each_line_of_a_budget() -> None:
    bounds = (Bound(Quantity.MACS, Fraction(4000)), Bound(Quantity.PARAMETERS, Fraction(220)))
    found = check_model(bounded(*bounds), COST, baseline=baseline({"conv": 500, "fc": 400}, saved=False))
    table = check_table(CheckReport("iftplan.toml", "before.json", (found,)))
    assert table.rows == (
        ("net", "1 000", "+100 (+11.1 %)", "110", "50.0% of 220 parameters", "passed"),
        ("", "", "", "", "25.0% of 4 000 MACs", ""),
    )


def test_a_model_that_the_baseline_does_not_have_is_new() -> None:
    found = check_model(MODEL, COST, baseline=Baseline("main", {}, {}, saved=False))
    report = CheckReport("iftplan.toml", "main", (found,))
    assert check_table(report).rows[0][2] == "new"
    assert check_page(report).sections[0].totals[0].cells[2] == (">since main", "new")


def test_a_comparison_that_judges_nothing_says_nothing_of_passing() -> None:
    found = check_model(MODEL, COST, baseline=baseline({"conv": 500, "fc": 400}, saved=False))
    report = CheckReport("iftplan.toml", "main", (found,))
    assert drift_tables(report)[-1].columns == ("model", ">MACs", ">since main", ">parameters")
    gone = replace(found, name="gone", measured=None, drift=None, status=Status.UNMEASURED)
    table = drift_tables(replace(report, models=(found, gone)))[-1]
    assert [row[-1] for row in table.rows] == ["passed", "could not measure"]


def test_the_document_counts_in_its_convention() -> None:
    check = check_model(bounded(Bound(Quantity.MACS, Fraction(800))), COST, baseline=baseline({"conv": 300}))
    report = CheckReport("iftplan.toml", "before.json", (check,))
    (mac,), (flop,) = (check_document(report, c)["models"] for c in Convention)
    assert (mac["measured_macs"], flop["measured_macs"]) == (1000, 2000)
    assert mac["parameters"] == flop["parameters"] == 110
    assert flop["drift"]["macs"]["difference"] == 2 * mac["drift"]["macs"]["difference"] == 1400
    assert flop["drift"]["parameters"] == mac["drift"]["parameters"]
    assert sum(layer["measured_macs"] for layer in mac["layers"]) == 1000
    assert mac["limits"][0]["deviation_exact"] == "1/4"


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), LAYERS, max_size=3
    )
)
def test_a_baseline_comes_back_as_it_was_saved(models: dict[str, dict[str, int]]) -> None:
    saved = Baseline(
        "b.json", {n: ModelCost(m, m) for n, m in models.items()}, dict.fromkeys(models, ("4x16",))
    )
    assert parse_baseline(baseline_document(saved), "b.json") == saved


def test_a_revision_that_could_not_be_counted_whole_is_no_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unknown there would be held to have cost nothing, and a ratio to it would mean little."""
    home = repository(tmp_path)
    dim = Costs({"small": replace(COST, unknown_ops={"my::scan": 2})})
    monkeypatch.setattr(revisions, "measure_models", lambda *given, **named: dim)
    config = read_config(home / "iftplan.toml")
    base, notes = revisions.revision_baseline(
        "main", config, config.models, cache=None, jobs=1, around=lambda count: nullcontext()
    )
    assert base.models == {}
    assert notes == ("small has no cost at main: my::scan has no formula there",)
