"""Whole models, planned from hand-written specs: every book is kept a second time here."""

import re
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import count
from math import lcm, prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan import api
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families import derivation
from iftplan.families import symbols as t
from iftplan.masks.distributions import DensityLayer, Distribution, densities, parameter_budget
from iftplan.models.spec import Couplings, InputSpec, Kind, LayerSpec, ModelSpec, WeightLayer, Width
from iftplan.plans.plan import Plan, PlannedLayer, Role, Scope
from tests.support.hand_specs import chain, conv, dense_macs, linear, mlp, monomial, resnet

quarter = Fraction(1, 4)
sparsities = st.integers(5, 95).map(lambda percent: Fraction(percent, 100))
scopes = st.sampled_from(("matrices", "layers", "model"))
families = st.sampled_from(("wide", "parallel", "factorized", "doped"))


def widened(size: int, sparsity: Fraction, unit: int = 1) -> int:
    """The smallest multiple of `unit` that is at least size/√d."""
    if not sparsity:
        return size
    return next(w for w in count(unit, unit) if w * w * (1 - sparsity) >= size * size)


def rows(plan: Plan) -> dict[str, PlannedLayer]:
    return {layer.name: layer for layer in plan.layers}


def chain_capacities(plan: Plan, classes: int = 16) -> dict[str, tuple[int, int]]:
    """Name → (positions, weights) at the plan's widths, from the architecture's arithmetic."""
    c, e = (plan.widths.get(name, size) for name, size in (("c", 16), ("e", 24)))
    return {
        "stem": (64, 27 * c),
        "body": (64, 9 * c * c),
        "dw": (64, 9 * c),
        "down": (16, 9 * c * e),
        "head": (1, classes * e),
    }


# --- the budget ----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(families, sparsities, scopes, st.sampled_from(("uniform", "er", "erk")), st.sampled_from((1, 8)))
def test_every_scope_closes_to_the_mac_or_the_refusal_names_what_would(
    family: str, sparsity: Fraction, scope: str, distribution: str, round_to: int
) -> None:
    spec = chain()
    asked: dict[str, Any] = {"scope": scope, "distribution": distribution, "round_to": round_to}
    try:
        plan = api.plan(spec, family, sparsity, **asked)
    except InfeasibleError as error:
        named = re.search(r"nearest feasible sparsity is (\d+(?:\.\d+)?)\.", str(error))
        assert re.search(r"stem|body|dw|down|head|mix", str(error))
        assert api.plan(spec, family, named[1], **asked).scope is Scope(scope)
        return
    assert plan.dense_macs(Scope.MODEL) == dense_macs(spec, "model")
    assert plan.dense_macs(Scope.LAYERS) == dense_macs(spec, "layers")
    assert plan.residual_macs == 0
    assert plan.ratio(plan.scope) == 1
    spent = sum(x.macs for x in plan.layers if x.role.within(plan.scope))
    assert spent == sum(x.dense_macs for x in plan.layers if x.role.within(plan.scope))
    for x in plan.layers:
        if x.role is not Role.ACTIVATION:
            assert x.macs == x.positions * (x.nnz + x.dense_weights)
            assert 0 < x.nnz <= x.capacity


@settings(max_examples=80, deadline=None)
@given(sparsities, st.integers(1, 40))
def test_what_no_whole_weight_can_spend_is_shown_and_named(sparsity: Fraction, classes: int) -> None:
    """The head costs `classes` MACs a channel, and masked weights come in steps of 16 MACs."""
    try:
        plan = api.plan(chain(classes=classes), "wide", sparsity)
    except InfeasibleError:
        return
    left = dense_macs(chain(classes=classes), "layers") - classes * plan.widths["e"]
    assert plan.residual_macs == left % 16
    unspent = "1 MAC stays" if plan.residual_macs == 1 else f"{plan.residual_macs} MACs stay"
    noted = any(note.startswith(f"{unspent} unspent") for note in plan.notes)
    assert noted == (plan.residual_macs > 0)


@settings(max_examples=60, deadline=None)
@given(sparsities, scopes, st.sampled_from((1, 4, 8)))
def test_wide_layers_hold_what_their_widths_say_and_the_closing_density_is_what_is_left(
    sparsity: Fraction, scope: str, round_to: int
) -> None:
    """d* = (B - F0)/F1 in every scope, whichever is closed."""
    try:
        plan = api.plan(chain(), "wide", sparsity, scope=scope, round_to=round_to)
    except InfeasibleError:
        return
    assert plan.widths == {"c": widened(16, sparsity, round_to), "e": widened(24, sparsity, round_to)}
    own, found = chain_capacities(plan), rows(plan)
    for name, (positions, weights) in own.items():
        assert (found[name].positions, found[name].capacity) == (positions, weights)
    assert found["dw"].nnz == 9 * 16
    assert found["stem"].nnz == 27 * plan.widths["c"]
    maskable = sum(
        positions * weights for name, (positions, weights) in own.items() if name in ("body", "down")
    )
    kept = 64 * 27 * plan.widths["c"] + 64 * 9 * 16 + 16 * plan.widths["e"]
    products = 2 * 16 * 16 * plan.widths["e"]
    before = {
        Scope.MATRICES: 64 * 9 * 16 * 16 + 16 * 9 * 16 * 24,
        Scope.LAYERS: dense_macs(chain(), "layers"),
        Scope.MODEL: dense_macs(chain(), "model"),
    }
    fixed = {Scope.MATRICES: 0, Scope.LAYERS: kept, Scope.MODEL: kept + products}
    for which in before:
        density = Fraction(before[which] - fixed[which], maskable)
        assert plan.closing_sparsity[which] == (1 - density if 0 < density <= 1 else None)
    masked = [found["body"], found["down"]]
    closing = 1 - plan.closing_sparsity[plan.scope]
    for x in masked:
        assert (
            abs(x.nnz - closing * x.capacity) <= 4
        )  # whole weights: four positions of `down` make one of `body`


def test_a_scope_that_no_density_closes_has_no_closing_sparsity() -> None:
    """At k = 10 the stem and the products of activations alone cost more than the dense model."""
    plan = api.plan(chain(), "wide", "0.99", scope="matrices")
    assert dense_macs(chain(), "model") < 10 * (64 * 27 * 16 + 2 * 16 * 16 * 24)
    assert plan.closing_sparsity == {Scope.MATRICES: Fraction(99, 100), Scope.LAYERS: None, Scope.MODEL: None}


def test_no_sparsity_is_the_dense_model() -> None:
    for family in ("wide", "parallel", "doped"):
        plan = api.plan(chain(), family, 0)
        assert all(x.nnz == x.capacity and x.macs == x.dense_macs for x in plan.layers)
        assert all(x.dense_weights == 0 for x in plan.layers)
        assert plan.ratio(Scope.MODEL) == 1


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped"])
def test_families_that_keep_the_width_close_every_layer_by_itself(family: str) -> None:
    plan = api.plan(mlp(), family, "3/4", keep_dense=())
    assert all(x.macs == x.dense_macs for x in plan.layers)
    assert plan.widths == {}


def test_branches_and_ranks_of_a_plan_are_those_of_their_layers() -> None:
    found = rows(api.plan(mlp(), "parallel", "3/4"))["fc2"]
    assert (found.structure, found.capacity) == ({"branches": 4}, 4 * 64 * 48)
    found = rows(api.plan(mlp(), "factorized", "3/4"))["fc2"]
    rank = next(r for r in count(1) if r * (64 + 48) * quarter >= 64 * 48)
    assert (found.structure, found.capacity) == ({"rank": rank}, rank * (64 + 48))
    found = rows(api.plan(mlp(), "doped", "3/4"))["fc2"]
    rank = max(r for r in range(99) if r * (64 + 48) <= Fraction(3, 4) * 64 * 48)
    assert (found.structure, found.dense_weights) == ({"rank": rank}, rank * (64 + 48))


# --- distributions -------------------------------------------------------------------------------------


def erk_by_hand(
    layers: Mapping[str, tuple[Any, Any, tuple[int, ...], int]], budget: Fraction, kernel: bool = True
) -> dict[str, Fraction]:
    """arXiv 1911.11134: ε·p_l, all layers tied at the maximum held at 1 while one exceeds it; costs in MACs."""
    p = {
        name: Fraction(n_in + n_out + (sum(k) if kernel else 0), n_in * n_out * (prod(k) if kernel else 1))
        for name, (n_in, n_out, k, _) in layers.items()
    }
    dense: set[str] = set()
    while True:
        free = [name for name in layers if name not in dense]
        left = budget - sum(layers[name][3] for name in dense)
        epsilon = left / sum(p[name] * layers[name][3] for name in free)
        if max(epsilon * p[name] for name in free) <= 1:
            return {name: Fraction(1) if name in dense else epsilon * p[name] for name in layers}
        top = max(p[name] for name in free)
        dense |= {name for name in free if p[name] == top}


@pytest.mark.parametrize("distribution", ["er", "erk"])
@pytest.mark.parametrize("sparsity", ["1/2", "3/4", "9/10"])
def test_er_and_erk_close_the_budget_in_macs(distribution: str, sparsity: str) -> None:
    plan = api.plan(chain(), "wide", sparsity, distribution=distribution)
    c, e = plan.widths["c"], plan.widths["e"]
    layers = {"body": (c, c, (3, 3), 64 * 9 * c * c), "down": (c, e, (3, 3), 16 * 9 * c * e)}
    budget = dense_macs(chain(), "layers") - 64 * 27 * c - 64 * 9 * 16 - 16 * e
    expected = erk_by_hand(layers, Fraction(budget), distribution == "erk")
    for name, density in expected.items():
        found = rows(plan)[name]
        assert abs(found.nnz - density * found.capacity) <= 4
    assert plan.residual_macs == 0
    assert plan.distribution == distribution


def test_erk_holds_small_layers_dense() -> None:
    sizes = (30, 400, 8, 400, 10)
    plan = api.plan(mlp(sizes), "wide", "1/4", distribution="erk", keep_dense=())
    layers = {
        x.name: (x.structure["in_channels"], x.structure["out_channels"], (), 7 * x.capacity)
        for x in plan.layers
    }
    expected = erk_by_hand(layers, Fraction(dense_macs(mlp(sizes), "layers")))
    assert 1 in expected.values()
    for name, density in expected.items():
        assert abs(rows(plan)[name].nnz - density * rows(plan)[name].capacity) <= len(layers)
        assert density < 1 or rows(plan)[name].density == 1


# --- ResNet-50, the published vectors ------------------------------------------------------------------


def test_resnet50_has_its_published_size() -> None:
    spec = resnet(50)
    assert len(spec.layers) == 54
    assert sum(x.layer.weights for x in spec.layers) == 25_502_912
    assert spec.macs == dense_macs(spec) == 4_089_184_256


def test_erk_on_resnet50() -> None:
    """s = .80 over all 54 tensors: 8 layers dense, MAC ratio .4138 (the RigL README prints .42)."""
    plan = api.plan(resnet(50), None, "0.8", distribution="erk", keep_dense=())
    assert sum(x.density == 1 for x in plan.layers) == 8
    assert round(float(plan.ratio(Scope.MODEL)), 4) == 0.4138
    layers = {
        x.layer.name: (x.layer.in_channels, x.layer.out_channels, x.layer.kernel, x.layer.weights)
        for x in resnet(50).layers
    }
    expected = erk_by_hand(layers, Fraction(25_502_912, 5))
    assert all(abs(x.nnz - expected[x.name] * x.capacity) <= Fraction(1, 2) for x in plan.layers)
    assert plan.scope is None
    assert plan.residual_macs is None


def test_epsilon_of_erk_on_resnet50() -> None:
    """ε = 99.5617, conv1 .857195, fc .148176: each layer's zeros rounded down first, as the RigL code does.

    Exact arithmetic, our default, keeps 24.6 weights fewer and differs in the sixth digit.
    """
    layers = {
        x.layer.name: (x.layer.in_channels, x.layer.out_channels, x.layer.kernel, x.layer.weights)
        for x in resnet(50).layers
    }
    shares = [DensityLayer(name, (n_in, n_out, *k), cost) for name, (n_in, n_out, k, cost) in layers.items()]
    budget = parameter_budget(shares, Fraction(4, 5), floor_zeros=True)
    assert budget == 25_502_912 - sum(share.cost * 4 // 5 for share in shares)
    found = densities(shares, budget, Distribution.ERK)
    free = [(d, share.shape) for d, share in zip(found, shares, strict=True) if d < 1]
    assert len(free) == 54 - 8
    assert {round(float(d * prod(shape) / sum(shape)), 4) for d, shape in free} == {99.5617}
    assert (round(float(found[0]), 6), round(float(found[-1]), 6)) == (0.857195, 0.148176)
    exact = parameter_budget(shares, Fraction(4, 5))
    assert budget - exact == Fraction(246, 10)
    assert densities(shares, exact, Distribution.ERK) == tuple(erk_by_hand(layers, exact).values())


def test_uniform_on_resnet50_with_a_dense_stem() -> None:
    plan = api.plan(resnet(50), None, "0.8", keep_dense=("first",))
    assert round(float(plan.ratio(Scope.MODEL)), 4) == 0.2231
    assert [x.name for x in plan.layers if not x.maskable] == ["conv1"]
    assert all(x.nnz == round(x.capacity / 5) for x in plan.layers[1:])


# --- what stays dense ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "dense"),
    [
        (("first", "last"), {"stem", "head"}),
        (("first",), {"stem"}),
        (("last", "down"), {"head", "down"}),
        ((), set()),
    ],
)
def test_layers_named_stay_dense_and_the_rest_pays(keep: tuple[str, ...], dense: set[str]) -> None:
    plan = api.plan(chain(), "wide", "1/2", keep_dense=keep)
    assert {x.name for x in plan.layers if x.role is Role.KEPT_DENSE} == dense
    assert all(rows(plan)[name].density == 1 and not rows(plan)[name].maskable for name in dense)
    assert plan.residual_macs == 0
    assert all(x.reason for x in plan.layers)


def test_a_layer_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"'bodi' is not a layer of hand:chain\. Did you mean 'body'\?"):
        api.plan(chain(), "wide", "1/2", keep_dense=("first", "bodi"))


def test_depthwise_layers_keep_their_weights_when_the_width_grows() -> None:
    """Their cost grows with k, not k²: at density 1/k they cost what they did (MobileNet-like blocks stay iso-FLOP)."""
    found = rows(api.plan(chain(), "wide", "3/4"))["dw"]
    assert found.role is Role.DEPTHWISE
    assert (found.capacity, found.nnz, found.macs) == (9 * 32, 9 * 16, found.dense_macs)
    assert str(found.after) == "dwconv3x3:32@64"
    for family in ("parallel", "factorized", "doped"):
        found = rows(api.plan(chain(), family, "3/4"))["dw"]
        assert found.role is Role.DEPTHWISE
        assert (found.capacity, found.nnz, found.before) == (144, 144, found.after)


def test_weights_that_cannot_be_masked_are_left_alone_with_their_reason() -> None:
    spec = mlp((30, 64, 8, 64))
    tied = replace(spec.layers[1], unmaskable="tied to the embedding")
    plan = api.plan(
        replace(spec, layers=(spec.layers[0], tied, spec.layers[2])), "wide", "1/2", keep_dense=()
    )
    assert rows(plan)["fc2"].role is Role.UNMASKABLE
    assert rows(plan)["fc2"].reason == "tied to the embedding"
    assert rows(plan)["fc2"].density == 1
    own = replace(spec.layers[1], class_name="MyAttention")
    plan = api.plan(
        replace(spec, layers=(spec.layers[0], own, spec.layers[2])), "parallel", "1/2", keep_dense=()
    )
    assert "MyAttention uses this weight directly" in rows(plan)["fc2"].reason


# --- infeasible ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "family", "sparsity", "asked", "names"),
    [
        (chain(classes=3000), "wide", "0.9", {}, "head"),
        (chain(), "wide", "0.99", {"scope": "model"}, "mix|stem"),
        (mlp((30, 8, 9, 10)), "doped", "1/10", {}, "fc2"),
        (mlp((30, 64, 48, 900)), "lowrank", "0.95", {}, "fc3"),
        (mlp((30, 8, 9, 900)), "wide", "0.98", {"round_to": 64}, "fc3"),
    ],
)
def test_an_infeasible_plan_names_the_layer_and_a_sparsity_that_is_feasible(
    spec: ModelSpec, family: str, sparsity: str, asked: dict[str, Any], names: str
) -> None:
    with pytest.raises(InfeasibleError) as caught:
        api.plan(spec, family, sparsity, **asked)
    assert re.search(names, str(caught.value))
    named = Fraction(re.search(r"nearest feasible sparsity is (\d+(?:\.\d+)?)\.", str(caught.value))[1])
    assert api.plan(spec, family, named, **asked).ratio(Scope(asked.get("scope", "layers"))) <= 1
    for percent in range(100):  # nothing in hundredths is nearer
        if abs(Fraction(percent, 100) - Fraction(sparsity)) < abs(named - Fraction(sparsity)):
            with pytest.raises(InfeasibleError):
                api.plan(spec, family, Fraction(percent, 100), **asked)


def test_the_advice_to_keep_a_layer_dense_can_be_followed() -> None:
    spec = mlp((30, 3, 3, 64, 64, 10))
    with pytest.raises(InfeasibleError, match="fc2") as caught:
        api.plan(spec, "lowrank", "3/4")
    advice = literal_eval(re.search(r"`keep_dense=(.+)`", str(caught.value))[1])
    plan = api.plan(spec, "lowrank", "3/4", keep_dense=advice)
    assert rows(plan)["fc2"].role is Role.KEPT_DENSE
    assert 0.9 < plan.ratio(Scope.LAYERS) <= 1  # whole ranks of the two layers that are left


def test_a_model_that_cannot_be_widened_says_why_and_what_can() -> None:
    spec = replace(chain(), couplings=None, refusal="body.forward line 7 pins the width to 16")
    with pytest.raises(InfeasibleError, match=r"body\.forward line 7") as caught:
        api.plan(spec, "wide", "1/2")
    assert "parallel, factorized or doped" in str(caught.value)
    assert api.plan(spec, "parallel", "1/2").residual_macs == 0


# --- widths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_to", [1, 4, 8, 16])
@pytest.mark.parametrize("heads", [1, 3, 12])
def test_widths_are_multiples_of_what_was_asked_and_of_what_the_model_needs(
    round_to: int, heads: int
) -> None:
    spec = mlp((30, 60, 48, 10), heads=heads)
    plan = api.plan(spec, "wide", "1/2", round_to=round_to, keep_dense=())
    unit = lcm(round_to, heads)
    assert plan.widths == {"w1": widened(60, Fraction(1, 2), unit), "w2": widened(48, Fraction(1, 2), unit)}
    assert plan.residual_macs == 0
    assert plan.multiplier == pytest.approx(2**0.5, rel=1e-15)


def test_a_width_that_is_fixed_stays() -> None:
    spec = chain()
    fixed = replace(spec.couplings, widths={"c": Width(16, fixed="read by a buffer"), "e": Width(24)})
    plan = api.plan(replace(spec, couplings=fixed), "wide", "1/2")
    assert plan.widths == {"c": 16, "e": 34}
    assert rows(plan)["dw"].density == 1


@pytest.mark.parametrize("sparsity", ["1/2", "3/4", "9/10"])
@pytest.mark.parametrize("scope", ["layers", "model"])
def test_closing_by_width_takes_the_smallest_widths_that_cover_the_budget_at_that_density(
    sparsity: str, scope: str
) -> None:
    spec, density = chain(), 1 - Fraction(sparsity)
    plan = api.plan(spec, "wide", sparsity, close="width", scope=scope)

    def cost(c: int, e: int) -> Fraction:
        fixed = 64 * 27 * c + 64 * 9 * 16 + 16 * e + (2 * 16 * 16 * e if scope == "model" else 0)
        return fixed + density * (64 * 9 * c * c + 16 * 9 * c * e)

    c, e = plan.widths["c"], plan.widths["e"]
    assert plan.residual_macs == 0
    assert cost(c, e) >= dense_macs(spec, scope)
    k = max(Fraction(c - 1, 16), Fraction(e - 1, 24))  # the largest multiplier with other widths
    smaller = {name: max(size, -(-k * size // 1)) for name, size in (("c", 16), ("e", 24))}
    assert cost(**smaller) < dense_macs(spec, scope)
    masked = [x for x in plan.layers if x.role is Role.TRANSFORMED]
    assert sum(x.macs for x in masked) <= density * sum(x.positions * x.capacity for x in masked)


def test_closing_by_width_needs_a_family_that_widens() -> None:
    for family in ("parallel", None):
        with pytest.raises(InputError, match="wide, nm or lowrank"):
            api.plan(chain(), family, "1/2", close="width")


def test_families_of_ones_own_are_planned_like_ours() -> None:
    slim = derivation.family("slim", cost=t.k**2 * t.m * t.n * t.d, unknown=t.k)
    ours, theirs = api.plan(chain(), "wide", "3/4"), api.plan(chain(), slim, "3/4")
    assert theirs.widths == ours.widths
    assert [x.nnz for x in theirs.layers] == [x.nnz for x in ours.layers]
    shared = derivation.family("shared", cost=t.b * t.m * t.n * t.d + t.m, unknown=t.b, structure="branches")
    body = rows(api.plan(chain(), shared, "3/4"))["body"]
    assert (body.structure, body.capacity, body.dense_weights) == ({"branches": 4}, 4 * 9 * 16 * 16, 9 * 16)
    assert body.nnz == 9 * 16 * 16 - 9 * 16


def test_a_family_that_widens_outputs_alone_is_refused_for_a_whole_model() -> None:
    outputs = derivation.family("outputs", cost=t.k * t.m * t.n * t.d, unknown=t.k)
    with pytest.raises(InputError, match="outputs widens a layer's outputs but not its inputs"):
        api.plan(chain(), outputs, "3/4")


def test_weights_of_every_layout_grow_on_their_own_sides() -> None:
    """torch holds (out, in) for Linear, (in, out) for embeddings and transformers' Conv1D, (in, out/groups, …) transposed."""
    layers = (
        WeightLayer(LayerSpec("embed", Kind.EMBEDDING, 100, 12, positions=0), "embed.weight", "Embedding"),
        WeightLayer(LayerSpec("mix", Kind.LINEAR, 12, 20, positions=5), "mix.weight", "Conv1D"),
        WeightLayer(LayerSpec("square", Kind.LINEAR, 20, 20, positions=5), "square.weight", "Conv1D"),
        WeightLayer(LayerSpec("turn", Kind.LINEAR, 20, 20, positions=5), "turn.weight", "Linear"),
        WeightLayer(
            LayerSpec("up", Kind.CONV_TRANSPOSE2D, 20, 8, (2, 2), 4, 5), "up.weight", "ConvTranspose2d"
        ),
        conv("group", 8, 6, 3, 2, groups=2),
        linear("out", 6, 10),
    )
    a, b, c, u, v = (monomial(1, name) for name in "abcuv")
    shapes = {
        "embed.weight": (monomial(100), a),
        "mix.weight": (a, b),
        "square.weight": (b, c),
        "turn.weight": (b, c),
        "up.weight": (c, u, monomial(2), monomial(2)),
        "group.weight": (v, monomial(2) * u, monomial(3), monomial(3)),
        "out.weight": (monomial(10), v),
    }
    macs = {
        "embed.weight": monomial(0),
        "mix.weight": monomial(5) * a * b,
        "square.weight": monomial(5) * b * c,
        "turn.weight": monomial(5) * b * c,
        "up.weight": monomial(5 * 4) * c * u,
        "group.weight": monomial(4 * 9 * 2) * u * v,
        "out.weight": monomial(10) * v,
    }
    widths = {"a": Width(12), "b": Width(20), "c": Width(20, 4), "u": Width(2), "v": Width(6, 2)}
    spec = ModelSpec(
        "hand:layouts", (InputSpec((5,)),), layers, couplings=Couplings(widths, shapes, {}, macs)
    )
    plan = api.plan(spec, "wide", "1/2", keep_dense=())
    assert plan.widths == {"a": 17, "b": 29, "c": 32, "u": 3, "v": 10}
    sizes = {x.name: (x.structure["in_channels"], x.structure["out_channels"]) for x in plan.layers}
    assert sizes == {
        "embed": (100, 17),
        "mix": (17, 29),
        "square": (29, 32),
        "turn": (32, 29),
        "up": (32, 12),
        "group": (12, 10),
        "out": (10, 10),
    }
    assert rows(plan)["up"].capacity == 32 * 3 * 4
    assert rows(plan)["group"].capacity == 10 * 6 * 9
    assert plan.residual_macs == 0


# --- low rank, plain sparsity --------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["matrices", "layers"])
@pytest.mark.parametrize("sparsity", ["1/2", "3/4"])
def test_low_rank_plans_close_as_far_as_whole_ranks_go(scope: str, sparsity: str) -> None:
    spec = mlp((30, 64, 48, 64, 10))
    plan = api.plan(spec, "lowrank", sparsity, scope=scope)
    masked = [x for x in plan.layers if x.role is Role.TRANSFORMED]
    assert masked
    per_rank = []
    for x in masked:
        rank = x.structure["rank"]
        one = x.structure["in_channels"] + x.structure["out_channels"]
        assert x.dense_weights == rank * one
        assert x.nnz == x.capacity == 0
        if rank < min(x.structure["in_channels"], x.structure["out_channels"]):
            per_rank.append(7 * one)
    assert 0 <= plan.residual_macs < min(per_rank)  # no layer can take another rank
    assert not plan.residual_macs or any("stay unspent" in note for note in plan.notes)
    assert plan.cardinality.maskable_weights == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(2, 80), min_size=4, max_size=6).map(tuple), sparsities)
def test_low_rank_plans_have_a_rank_in_every_layer_or_are_refused(
    sizes: tuple[int, ...], sparsity: Fraction
) -> None:
    try:
        plan = api.plan(mlp(sizes), "lowrank", sparsity)
    except InfeasibleError:
        return
    assert all(x.structure["rank"] >= 1 for x in plan.layers if x.role is Role.TRANSFORMED)
    assert plan.residual_macs >= 0


@given(sparsities)
def test_plain_sparsity_keeps_the_width_and_closes_nothing(sparsity: Fraction) -> None:
    plan = api.plan(chain(), None, sparsity)
    assert plan.transform == "none"
    assert plan.widths == {}
    for x in plan.layers:
        masked = x.role is Role.TRANSFORMED
        assert masked == (x.name in ("body", "dw", "down"))
        assert x.nnz == (round((1 - sparsity) * x.capacity) if masked else x.capacity)
    assert plan.scope is None
    assert any("the saved compute is not spent again" in note for note in plan.notes)


def test_the_search_space_of_a_plan_is_that_of_its_layers() -> None:
    plan = api.plan(mlp(), "wide", "3/4")
    assert plan.cardinality.maskable_weights == 128 * 96
    assert plan.cardinality.log2_masks == pytest.approx(rows(plan)["fc2"].log2_masks)


def test_a_layer_too_small_for_a_rank_stays_as_it_is() -> None:
    """A squeeze of 8 to 2 channels at one half would need a rank of ½·16/10."""
    layers = (
        WeightLayer(LayerSpec("big", Kind.LINEAR, 64, 64), "big.weight", "Linear"),
        WeightLayer(LayerSpec("squeeze", Kind.LINEAR, 8, 2), "squeeze.weight", "Linear"),
    )
    made = api.plan(ModelSpec("", (), layers), "doped", "1/2", scope="matrices")
    big, squeeze = made.layers
    assert squeeze.role is Role.KEPT_DENSE
    assert "too small" in squeeze.reason
    assert squeeze.macs == squeeze.dense_macs == 16
    assert (big.structure["rank"], big.macs) == (16, 4096)
    with pytest.raises(InfeasibleError, match="transforms no layer: squeeze"):
        api.plan(ModelSpec("", (), layers[1:]), "doped", "1/2", scope="matrices")
