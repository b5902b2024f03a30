"""Budgets of any size: what they are read from, what plans make of them, and what they refuse; every book is kept twice."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan import api
from iftplan.base.documents import with_digest
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.models.spec import ModelSpec
from iftplan.plans.budget import Budget, parse_budget
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, Role, Scope
from iftplan.plans.tables import plan_table, scope_table
from tests.support.hand_specs import chain, dense_macs, mlp

sparsities = st.integers(5, 95).map(lambda percent: Fraction(percent, 100))
times = st.integers(1, 400).map(lambda percent: Fraction(percent, 100))
scopes = st.sampled_from(("matrices", "layers", "model"))
distributions = st.sampled_from(("uniform", "er", "erk"))

STEM, BODY, DW, DOWN, HEAD = 64 * 27, 64 * 9, 64 * 9, 16 * 9, 1
"""MACs of the chain's layers for each product of their widths."""


def chain_books(scope: str, c: int, e: int, *, plain: bool = False) -> tuple[int, int, int]:
    """MACs of the chain at widths c and e that stay, of all maskable weights, and of one weight in each masked layer."""
    masked = BODY * c * c + DOWN * c * e
    depthwise = DW * (c if plain else 16)
    kept = STEM * c + HEAD * 16 * e
    products = 2 * 16 * 16 * e if scope == "model" else 0
    if plain:
        return (0 if scope == "matrices" else kept) + products, masked + depthwise, 64 + 64 + 16
    return (0 if scope == "matrices" else kept + depthwise) + products, masked, 64 + 16


def of_matrices(spec: ModelSpec, *, plain: bool = False) -> int:
    inner = {"body", "down", "dw"} if plain else {"body", "down"}
    return sum(w.layer.dense_macs for w in spec.layers if w.layer.name in inner)


def nearest(error: InfeasibleError) -> int:
    found = re.search(r"nearest feasible budget is `budget='(\d+)'`", str(error))
    assert found, str(error)
    return int(found[1])


# --- what a budget is read from ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5x", Budget(Fraction(1, 2))),
        ("1.2X", Budget(Fraction(6, 5))),
        ("3/4x", Budget(Fraction(3, 4))),
        ("50%x", Budget(Fraction(1, 2))),
        (" 2 × ", Budget(Fraction(2))),
        ("400M", Budget(macs=400_000_000)),
        ("1.2GFLOPs", Budget(macs=600_000_000)),
        (555_468_800, Budget(macs=555_468_800)),
    ],
)
def test_budgets_are_read_as_people_write_them(text: str | int, expected: Budget) -> None:
    assert parse_budget(text) == expected


@pytest.mark.parametrize("text", ["0x", "-1x", "x", "0", "many", "", "2e18-training", "0.5 M x", -3])
def test_what_is_no_budget_is_refused(text: str | int) -> None:
    with pytest.raises(InputError, match="budget"):
        parse_budget(text)


# --- closed to the MAC ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(sparsities, times, scopes, distributions)
def test_wide_layers_spend_the_budget_to_the_mac_or_name_the_nearest(
    sparsity: Fraction, x: Fraction, scope: str, distribution: str
) -> None:
    """d* = (B - F0)/F1 with widths from the sparsity alone; feasible budgets are those from F0 + 80 to F0 + F1."""
    spec = chain()
    asked: dict[str, Any] = {"scope": scope, "distribution": distribution}
    widths = {name: next(w for w in range(size, 10**4) if w * w * (1 - sparsity) >= size * size) for name, size in (("c", 16), ("e", 24))}  # fmt: skip
    fixed, maskable, least = chain_books(scope, widths["c"], widths["e"])
    dense = of_matrices(spec) if scope == "matrices" else dense_macs(spec, scope)
    budget = floor(x * dense)
    try:
        plan = api.plan(spec, "wide", sparsity, budget=f"{x}x", **asked)
    except InfeasibleError as error:
        if x == 1 or "leaves some layers dense" in str(error):
            return
        assert not fixed + least <= budget <= fixed + maskable
        assert nearest(error) == (fixed + least if budget < fixed + least else fixed + maskable)
        near = api.plan(spec, "wide", sparsity, budget=nearest(error), **asked)
        assert near.macs(scope) == nearest(error)
        return
    assert fixed + (0 if x == 1 else least) <= budget <= fixed + maskable
    assert plan.widths == widths
    assert plan.budget_macs(scope) == budget
    assert plan.residual_macs == (budget - fixed) % 16  # a masked weight costs 16 or 64 MACs
    assert plan.macs(scope) == budget - plan.residual_macs
    closing = Fraction(budget - fixed, maskable)
    assert plan.closing_sparsity[Scope(scope)] == 1 - closing
    masked = [layer for layer in plan.layers if layer.role is Role.TRANSFORMED]
    assert all(0 < layer.nnz <= layer.capacity for layer in masked)
    if distribution == "uniform":
        assert all(
            abs(layer.nnz - closing * layer.capacity) < 5 for layer in masked
        )  # 4 weights of 16 for one of 64


@pytest.mark.parametrize(
    ("budget", "closest", "way"),
    [
        ("0.1x", 65_360, "small"),
        (65_359, 65_360, "small"),
        (876_289, 876_288, "large"),
        ("5x", 876_288, "large"),
    ],
)
def test_the_nearest_budget_is_named_in_both_directions(budget: str | int, closest: int, way: str) -> None:
    """At width 32 and 48: 65 280 MACs have no mask, one weight of 64 and one of 16 follow, all of them cost 811 008."""
    with pytest.raises(InfeasibleError, match=f"is too {way} for scope layers at sparsity 0.75") as caught:
        api.plan(chain(), "wide", "3/4", budget=budget)
    assert nearest(caught.value) == closest
    plan = api.plan(chain(), "wide", "3/4", budget=closest)
    assert plan.macs("layers") == closest
    found = {layer.name: layer.nnz for layer in plan.layers if layer.role is Role.TRANSFORMED}
    assert found == ({"body": 1, "down": 1} if way == "small" else {"body": 9 * 32 * 32, "down": 9 * 32 * 48})


def test_a_small_layer_keeps_a_weight_at_a_small_budget() -> None:
    """20 weights for layers of 10 000 and 200: the small one's share is .39 of a weight, and it gets one."""
    spec = mlp((8, 100, 100, 2, 8))
    kept = 7 * (8 * 100 + 2 * 8)
    plan = api.plan(spec, "none", budget=kept + 7 * 20)
    assert plan.residual_macs == 0
    assert [layer.nnz for layer in plan.layers] == [800, 19, 1, 16]


@settings(max_examples=150, deadline=None)
@given(times, scopes, distributions)
def test_plain_sparsity_is_what_the_budget_asks_for(x: Fraction, scope: str, distribution: str) -> None:
    spec = chain()
    fixed, maskable, least = chain_books(scope, 16, 24, plain=True)
    budget = floor(x * (fixed + maskable))
    assert fixed + maskable == (
        of_matrices(spec, plain=True) if scope == "matrices" else dense_macs(spec, scope)
    )
    try:
        plan = api.plan(spec, "none", budget=f"{x}x", scope=scope, distribution=distribution)
    except InfeasibleError as error:
        assert "leaves some layers dense" in str(error) or not fixed + least <= budget <= fixed + maskable
        return
    assert plan.scope is Scope(scope)
    assert plan.sparsity == plan.closing_sparsity[Scope(scope)] == 1 - Fraction(budget - fixed, maskable)
    assert plan.residual_macs == (budget - fixed) % 16
    assert plan.macs(scope) == budget - plan.residual_macs
    assert not plan.widths


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(("parallel", "factorized", "doped", "lowrank", "monarch", "kronecker", "butterfly")),
    sparsities,
    times,
    scopes,
)
def test_other_families_spend_it_or_name_a_budget_that_they_can(
    family: str, sparsity: Fraction, x: Fraction, scope: str
) -> None:
    spec = mlp(heads=1)
    try:
        plan = api.plan(spec, family, sparsity, budget=f"{x}x", scope=scope)
    except InfeasibleError as error:
        if "nearest feasible budget" in str(error):
            near = api.plan(spec, family, sparsity, budget=nearest(error), scope=scope)
            assert near.macs(scope) == nearest(error)
        else:
            assert "rank of 1" in str(error) or "would need a rank of" in str(error) or x == 1
        return
    allowed = floor(x * sum(p.dense_macs for p in plan.rows_in(scope)))
    assert plan.residual_macs is not None
    spent = sum(p.macs for p in plan.rows_in(scope))
    assert allowed - spent == plan.residual_macs
    if family in ("lowrank", "monarch", "kronecker", "butterfly"):
        ranks = [p for p in plan.layers if p.structure.get("rank")]
        dearest = max(p.macs // int(p.structure["rank"] or 1) for p in ranks)
        # one more rank of a·r + c·r² costs a + c·(2·r + 1), no more than three times as much as each on average
        assert 0 <= plan.residual_macs < dearest * (3 if family == "butterfly" else 1)
    else:  # every weight of the masked layers is applied at 7 positions
        assert plan.residual_macs == (allowed - spent) % 7


@settings(max_examples=60, deadline=None)
@given(times)
def test_without_sparsity_a_family_is_plain_sparsity(x: Fraction) -> None:
    """At s = 0 widths and branches are the dense model's, so that only masks are left to meet a budget."""
    spec = mlp()
    found: list[int | tuple[int, ...]] = []
    for family, sparsity in (("none", None), ("wide", 0), ("parallel", 0)):
        try:
            plan = api.plan(spec, family, sparsity, budget=f"{x}x")
        except InfeasibleError as error:
            found.append(nearest(error))
            continue
        found.append(tuple(layer.nnz for layer in plan.layers))
    assert x == 1 or found[0] == found[1] == found[2]


@settings(max_examples=40, deadline=None)
@given(sparsities, st.integers(100, 400).map(lambda percent: Fraction(percent, 100)))
def test_width_closes_at_the_density_asked_for(sparsity: Fraction, x: Fraction) -> None:
    """The smallest multiplier that covers the budget: masks thin it, and a multiplier a bit smaller would not cover."""
    spec = mlp()
    plan = api.plan(spec, "wide", sparsity, budget=f"{x}x", close="width")
    budget = floor(x * dense_macs(spec, "layers"))
    assert plan.macs("layers") == budget - (plan.residual_macs or 0)

    def cost(multiplier: float) -> Fraction:
        inner = [64, 48]
        sizes = [
            30,
            *(next(w for w in range(int(multiplier * s), 10**5) if w >= multiplier * s) for s in inner),
            10,
        ]
        first, middle, last = (7 * a * b for a, b in pairwise(sizes))
        return first + last + (1 - sparsity) * middle

    assert cost(plan.multiplier * (1 - 1e-6)) < budget <= cost(plan.multiplier)


def test_a_width_below_the_dense_one_is_refused_with_the_nearest_budget() -> None:
    with pytest.raises(InfeasibleError, match="widths do not shrink") as caught:
        api.plan(mlp(), "wide", "3/4", budget="0.1x", close="width")
    plan = api.plan(mlp(), "wide", "3/4", budget=nearest(caught.value), close="width")
    assert plan.multiplier == 1
    assert plan.residual_macs == 0


@pytest.mark.parametrize("x", ["0.5x", "0.75x", "1.5x", "2x"])
def test_patterns_of_hardware_close_too(x: str) -> None:
    plan = api.plan(chain(c=64, e=64), "wide", "3/4", mask="2:8", budget=x)
    assert plan.budget_macs("layers") == floor(Fraction(x[:-1]) * plan.dense_macs("layers"))
    assert plan.residual_macs is not None
    assert 0 <= plan.residual_macs < 64


# --- 1x is no budget of its own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family", ["wide", "parallel", "factorized", "doped", "lowrank", "monarch", "kronecker", "butterfly"]
)
@pytest.mark.parametrize("scope", ["matrices", "layers", "model"])
@pytest.mark.parametrize("text", ["1x", "100%x", "1.0x"])
def test_once_the_dense_cost_is_the_plan_without_a_budget(family: str, scope: str, text: str) -> None:
    before = api.plan(mlp(), family, "1/2", scope=scope)
    after = api.plan(mlp(), family, "1/2", scope=scope, budget=text)
    assert plan_document(after) == plan_document(before)
    assert "budget" not in plan_document(after)


def test_plain_sparsity_at_the_dense_cost_keeps_everything() -> None:
    plan = api.plan(chain(), "none", budget="1x")
    assert plan.sparsity == 0
    assert all(layer.nnz == layer.capacity for layer in plan.layers)


# --- documents and tables ------------------------------------------------------------------------------


def planned(budget: str = "0.5x", family: str = "wide") -> Plan:
    return api.plan(chain(), family, None, budget=budget)


@pytest.mark.parametrize(("text", "written"), [("0.5x", "1/2"), ("100k", 100_000)])
@pytest.mark.parametrize("family", ["none", "wide"])
def test_the_document_holds_the_budget(text: str, written: str | int, family: str) -> None:
    document = plan_document(planned(text, family))
    assert document["budget"] == written
    again = parse_plan(document)
    assert again == planned(text, family)
    assert plan_document(again) == document


@pytest.mark.parametrize("budget", ["1/4", "0/1", "-1/2", "half", "2/4", 0, -5, 10**6])
def test_a_budget_that_the_layers_do_not_follow_is_refused(budget: str | int) -> None:
    document = plan_document(planned())
    forged = with_digest(
        {key: value for key, value in document.items() if key != "digest"} | {"budget": budget}
    )
    with pytest.raises(InputError):
        parse_plan(forged)


def test_a_plan_of_plain_sparsity_has_a_scope_only_with_its_budget() -> None:
    document = plan_document(planned(family="none"))
    without = {key: value for key, value in document.items() if key not in ("digest", "budget")}
    with pytest.raises(InputError, match="scope"):
        parse_plan(with_digest(without))


def test_tables_name_the_budget() -> None:
    assert "wide at sparsity 0.75 and budget 0.5x" in plan_table(planned()).title
    assert "none at budget 100 000 MACs" in plan_table(planned("100k", "none")).title
    assert [row[0] for row in scope_table(planned()).rows] == ["matrices", "layers (closed at 0.5x)", "model"]


# --- what does not go together -------------------------------------------------------------------------


def test_plain_sparsity_takes_one_of_sparsity_and_budget() -> None:
    with pytest.raises(InputError, match="Give one of them"):
        api.plan(chain(), "none", "1/2", budget="0.5x")


def test_plain_sparsity_of_a_fixed_pattern_meets_no_budget() -> None:
    with pytest.raises(InputError, match="fix the density"):
        api.plan(mlp(), "none", budget="0.5x", mask="2:8")


def test_a_budget_of_one_module() -> None:
    plan = api.plan(chain(), "wide", "1/2", scope="module:body", budget="0.3x")
    body = BODY * 16 * 16
    assert plan.dense_macs("module") == body
    assert 0 <= floor(Fraction(3, 10) * body) - plan.macs("module") < 64
