"""Plans with several families: which layer is in which, what neighbours' widths make of it, and one budget over all."""

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iftplan import api
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import bits as shown
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, Role, Scope
from iftplan.plans.policy import parse_assignment
from iftplan.plans.request import PlanRequest, Pricing, make_plan
from iftplan.plans.tables import plan_table
from tests.support.hand_profiles import profile
from tests.support.hand_specs import chain, dense_macs, mlp

NAMES = ("wide", "parallel", "factorized", "doped", "lowrank", "none", "dense")
SIZES = (30, 64, 48, 40, 10)
ENDS = {f"fc{i}": (f"w{i - 1}", f"w{i}") for i in range(1, 5)}
sparsities = st.integers(30, 90).map(lambda percent: Fraction(percent, 100))
scopes = st.sampled_from(("matrices", "layers", "model"))


def families_of(names: tuple[str, ...]) -> dict[str, str]:
    return {f"fc{i}": name for i, name in enumerate(names, 1)}


def made(names: tuple[str, ...], sparsity: Fraction, **asked: Any) -> Plan:
    return api.plan(mlp(SIZES), families_of(names), sparsity, keep_dense=None, **asked)


@settings(max_examples=120, deadline=None)
@given(st.tuples(*[st.sampled_from(NAMES)] * 4), sparsities, scopes)
def test_a_budget_over_several_families_closes_to_the_mac_and_is_added_up_anew(
    names: tuple[str, ...], sparsity: Fraction, scope: str
) -> None:
    try:
        plan = made(names, sparsity, scope=scope)
    except InfeasibleError as error:
        found = re.search(r"nearest feasible sparsity is (\d+(?:\.\d+)?)\.", str(error))
        assert found is not None or "No sparsity makes it feasible" in str(error)
        if found:
            assert made(names, Fraction(found[1]), scope=scope).scope is not None
        return
    widens = {
        width
        for layer, name in families_of(names).items()
        if name in ("wide", "lowrank")
        for width in ENDS[layer]
        if width not in ("w0", "w4")
    }
    assert (
        plan.widths
        == {
            f"w{i}": next(w for w in range(size, 999) if w * w * (1 - sparsity) >= size * size)
            if f"w{i}" in widens
            else size
            for i, size in enumerate(SIZES[1:-1], 1)
        }
        or not plan.widths
    )
    assert bool(plan.widths) == bool({"wide", "lowrank"} & set(names))
    size = {f"w{i}": size for i, size in enumerate(SIZES)} | dict(plan.widths)
    spent = 0
    for layer in plan.layers:
        name = families_of(names)[layer.name]
        m, n = (size[end] for end in ENDS[layer.name])
        assert layer.transform == (name if name != "dense" else "")
        rank = layer.structure.get("rank", 0)
        capacity, beside = {
            "parallel": (layer.structure.get("branches", 1) * m * n, 0),
            "factorized": (rank * (m + n), 0),
            "doped": (m * n, rank * (m + n)),
            "lowrank": (0, rank * (m + n)),
        }.get(name, (m * n, 0))
        assert (layer.capacity, layer.dense_weights) == (capacity, beside)
        assert layer.macs == 7 * (layer.nnz + layer.dense_weights)
        assert layer.nnz == layer.capacity or layer.maskable
        spent += layer.macs if layer.role.within(plan.scope or Scope.LAYERS) else 0
    if set(names) <= {"none", "dense"}:
        assert plan.scope is None
        return
    transformed = [layer for layer in plan.layers if layer.role is Role.TRANSFORMED]
    budget = sum(x.dense_macs for x in plan.layers if scope != "matrices" or x in transformed)
    assert plan.residual_macs == budget - spent
    masks = any(x.maskable and x.nnz < x.capacity for x in transformed)
    assert 0 <= budget - spent < (7 if masks else budget)
    assert parse_plan(plan_document(plan)) == plan


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.sampled_from(("wide", "parallel", "factorized", "lowrank", "none"))] * 4),
    st.sampled_from(("0.4x", "0.5x", "0.9x", "1.5x", "2x")),
    scopes,
)
def test_any_other_budget_closes_too_or_the_nearest_that_does_is_named(
    names: tuple[str, ...], budget: str, scope: str
) -> None:
    assume(set(names) - {"none"})
    try:
        plan = made(names, Fraction(3, 4), scope=scope, budget=budget)
    except InfeasibleError as error:
        found = re.search(r"nearest feasible budget is `budget='(\d+)'`", str(error))
        assert found is not None
        assert made(names, Fraction(3, 4), scope=scope, budget=found[1]).residual_macs == 0
        return
    within = int(Fraction(budget[:-1]) * plan.dense_macs(scope)) - plan.macs(scope)
    assert plan.residual_macs == within >= 0
    masks = any(x.maskable and 0 < x.nnz < x.capacity for x in plan.layers)
    assert within < 7 or not masks
    assert parse_plan(plan_document(plan)) == plan


def test_a_layer_between_wide_ones_pays_for_the_widths_that_it_is_given() -> None:
    """Parallel: b·k²·m·n·d = m·n makes b = 1 where both sides widen, b = 1/(k·d) = k where one does."""
    both = api.plan(mlp(SIZES), {"fc2": "parallel", "*": "wide"}, "3/4", keep_dense=None)
    assert {x.name: x.structure.get("branches") for x in both.layers}["fc2"] == 1
    assert both.widths == {"w1": 128, "w2": 96, "w3": 80}
    one = api.plan(mlp(SIZES), {"fc1": "wide", "*": "parallel"}, "3/4", keep_dense=None)
    assert one.widths == {"w1": 128, "w2": 48, "w3": 40}
    assert [x.structure.get("branches") for x in one.layers] == [None, 2, 4, 4]
    follower = one.layers[1]
    assert follower.reason == "Sparse Parallel at the sparsity asked for, at the widths of its neighbours"


def test_ranks_and_masks_share_a_smaller_budget_in_proportion() -> None:
    half = api.plan(mlp(SIZES), {"fc2": "lowrank", "*": "wide"}, "3/4", budget="0.5x", keep_dense=None)
    whole = api.plan(mlp(SIZES), {"fc2": "lowrank", "*": "wide"}, "3/4", keep_dense=None)
    shares = [x.macs / y.macs for x, y in zip(half.layers, whole.layers, strict=True)]
    assert all(abs(share - 0.5) < 0.1 for share in shares), shares


def test_depthwise_layers_follow_the_widths_of_another_family_and_say_so() -> None:
    plan = api.plan(chain(), {"dw": "parallel", "*": "wide"}, "3/4")
    dw = next(x for x in plan.layers if x.name == "dw")
    assert (dw.role, dw.nnz, dw.capacity) == (Role.DEPTHWISE, 9 * 16, 9 * 32)
    assert dw.reason.startswith("grows with the width")
    assert plan.macs("layers") == dense_macs(chain(), "layers")


def test_layers_that_no_glob_matches_stay_dense_and_the_plan_says_which() -> None:
    plan = api.plan(chain(), {"body": "parallel"}, "3/4")
    assert plan.transform == "body=parallel, dense"
    assert [x.name for x in plan.layers if x.transform] == ["body"]
    assert "2 layers are in no family and stay dense: dw, down" in plan.notes
    assert plan.residual_macs == 0


def test_a_rule_that_only_layers_kept_dense_match_is_noted() -> None:
    assert "no layer that 'stem' matches is transformed: the role of each says why" in (
        api.plan(chain(), {"stem": "parallel", "*": "wide"}, "3/4").notes
    )


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ({"bdy": "wide"}, "`family`: no layer of hand:chain matches 'bdy'. Did you mean 'body'"),
        ({"b*": "wide", "body": "parallel"}, "all layers that 'body' matches are in the families of earlier paths"),
        ({"*": "wide", "body": "parallel"}, "'body' comes after '*', which takes all layers"),
        ({"body": "waid"}, "unknown family 'waid'. Did you mean 'wide'? Families are wide, parallel, factorized, doped, lowrank, nm, monarch, btt, kronecker, butterfly, none, dense"),
        ("body=", "'body=' is not a family, and not a path with its family"),
        ("wide, parallel", "names 2 families, and a layer has one"),
        ("dense", "unknown family 'dense'"),
        ({"body": "nm", "*": "parallel"}, "2:8 masks fix the density"),
    ],
)  # fmt: skip
def test_what_no_layer_can_be_in_is_refused(family: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        api.plan(chain(), family, "3/4")


def test_text_and_mapping_ask_for_the_same_and_are_written_the_same() -> None:
    asked = {"b*": "parallel", "down": "none", "*": "wide"}
    plan = api.plan(chain(), asked, "3/4")
    assert plan == api.plan(chain(), "wide, b*=parallel, down=none", "3/4")
    assert plan.transform == "b*=parallel, down=none, wide"
    assert str(parse_assignment(plan.transform)) == plan.transform
    assert plan.families == ("parallel", "none")
    only = api.plan(chain(), {"*": "wide"}, "3/4")
    assert only == api.plan(chain(), "wide", "3/4")
    assert "transform" not in plan_document(only)["layers"][1]


def test_tables_have_a_column_of_families_where_there_are_several() -> None:
    several = plan_table(api.plan(chain(), {"body": "parallel", "*": "wide"}, "3/4"))
    assert "family" in several.columns
    column = several.columns.index("family")
    assert [row[column] for row in several.rows] == ["", "parallel", "", "wide", "", ""]
    assert "family" not in plan_table(api.plan(chain(), "wide", "3/4")).columns


def test_a_document_whose_families_contradict_each_other_is_refused() -> None:
    plan = api.plan(chain(), {"body": "parallel", "*": "wide"}, "3/4")
    layers = tuple(replace(x, transform="wide") if x.name == "body" else x for x in plan.layers)
    with pytest.raises(InputError, match="body has the family 'wide'"):
        parse_plan(plan_document(replace(plan, layers=layers)))
    with pytest.raises(InputError, match="transform"):
        parse_plan(plan_document(replace(plan, transform="body=, wide")))


def test_closing_by_width_goes_over_all_families() -> None:
    plan = api.plan(mlp(SIZES), {"fc3": "parallel", "*": "wide"}, "3/4", close="width", keep_dense=None)
    assert plan.residual_macs == 0
    masked = [x for x in plan.layers if x.maskable]
    assert all(abs(x.density - Fraction(1, 4)) < Fraction(1, 20) for x in masked)


# --- by search ------------------------------------------------------------------------------------------


def test_the_search_keeps_the_best_of_all_combinations() -> None:
    asked = {"fc2": "parallel|doped", "*": "wide|factorized|none"}
    found = api.plan(mlp(SIZES), asked, "3/4", objective="search-space")
    bits = {
        (a, b): api.plan(mlp(SIZES), {"fc2": a, "*": b}, "3/4").cardinality.log2_masks or 0
        for a in ("parallel", "doped")
        for b in ("wide", "factorized", "none")
    }
    best = max(bits, key=lambda pair: bits[pair])
    assert found.transform == f"fc2={best[0]}, {best[1]}"
    assert found.cardinality.log2_masks == bits[best]
    assert found.notes[0].startswith(
        f"families chosen by search-space among 6, best first: {found.transform} ("
    )
    chance = sum(map(float, bits.values())) / len(bits)
    assert found.notes[0].endswith(
        f"; a choice at random has {shown(chance)} on average, and the best {bits[best] / chance:.3g} times that"
    )
    fewest = api.plan(mlp(SIZES), asked, "3/4", objective="parameters")
    assert sum(x.capacity + x.dense_weights for x in fewest.layers) <= sum(
        x.capacity + x.dense_weights for x in found.layers
    )
    assert parse_plan(plan_document(found)) == found


def test_all_families_are_alternatives_and_infeasible_ones_are_named() -> None:
    found = api.plan(chain(), "all", "0.99", objective="search-space")
    assert "(infeasible)" in found.notes[0]
    assert found.transform in ("wide", "parallel", "factorized", "doped", "lowrank")


@pytest.mark.parametrize(
    ("family", "objective", "says"),
    [
        ("wide|doped", "flops", "leaves a choice between wide and doped"),
        ("wide", "parameters", "chooses between families, and only one is given"),
        ({"fc1": "all", "fc2": "all", "*": "all"}, "parameters", "leaves 125 combinations of families, and iftplan plans at most 64"),
    ],
)  # fmt: skip
def test_searches_that_cannot_be_are_refused(family: Any, objective: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        api.plan(mlp(SIZES), family, "3/4", objective=objective)


def test_time_chooses_among_plans_for_time() -> None:
    """Branches run at the dense layer's own size, a rank's factors too: what the profile says is all that decides."""
    pricing = Pricing(profile())
    asked = PlanRequest("*=wide|parallel|none", "3/4", pricing=pricing)
    found = make_plan(mlp((64, 256, 256, 64), tokens=256), asked)
    seconds = {
        name: make_plan(mlp((64, 256, 256, 64), tokens=256), replace(asked, family=name)).wallclock
        for name in ("wide", "parallel", "none")
    }
    assert found.wallclock is not None
    assert found.wallclock.seconds == min(clock.seconds for clock in seconds.values() if clock)
    assert found.transform == "none", "a quarter of the cost takes least time"
    assert found.notes[0].startswith("families chosen by wallclock among 3, best first: none (")
