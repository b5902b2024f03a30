"""Solving layers in whole numbers, held against a brute-force search written from the papers' equations alone."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, takewhile
from math import isqrt, lcm, prod, sqrt
from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.base.units import Convention
from iftplan.families.builtin import FAMILIES
from iftplan.families.solution import Outcome
from iftplan.families.solver import solve
from iftplan.families.tables import solutions_table, structure_text
from iftplan.masks import parse_mask
from iftplan.models.notation import parse_layer
from iftplan.models.spec import Kind, LayerSpec
from tests.support.layer_strategies import attentions, convolutions, depthwise, layers, linears, sparsities

MASKED = ("wide", "parallel", "factorized", "doped")
many = settings(max_examples=275, deadline=None)
some = settings(max_examples=100, deadline=None)


# --- the oracle: integers by trying them one after the other ----------------------------------------


@dataclass(frozen=True)
class Expected:
    structure: dict[str, int]
    capacity: int
    nnz: int
    dense_weights: int = 0


def first(fits: Callable[[int], bool], step: int = 1) -> int:
    return next(x for x in count(step, step) if fits(x))


def last(fits: Callable[[int], bool], step: int = 1) -> int:
    return max(takewhile(fits, count(step, step)), default=0)


def matrix(layer: LayerSpec, c_in: int, c_out: int) -> tuple[int, int]:
    """(m, n) at these channels: the kernel is with the inputs, or with the outputs of a transposed convolution."""
    m, n, kernel = c_in // layer.groups, c_out, prod(layer.kernel)
    return (m, n * kernel) if "transpose" in layer.kind else (m * kernel, n)


def brute_force(layer: LayerSpec, family: str, s: Fraction, round_to: int = 1) -> Expected | None:
    """The structure that the equations ask for, per position; None where none exists."""
    d = 1 - s
    copies = 4 if layer.kind is Kind.ATTENTION else 1  # query, key, value, output
    m, n = matrix(layer, layer.in_channels, layer.out_channels)
    products = 2 * layer.positions * n if copies == 4 else 0
    weights = copies * m * n
    match family:
        case "wide":
            return _wide(layer, d, round_to, weights, products)
        case "parallel":
            b = first(lambda b: b * m * n * d >= m * n)
            return Expected({"branches": b}, b * weights, weights)
        case "factorized":
            r = first(lambda r: r * (m + n) * d >= m * n, layer.groups)
            return Expected({"rank": r}, copies * r * (m + n), weights)
        case "doped":
            r = last(lambda r: r * (m + n) <= s * m * n, layer.groups)
            if not r and s:
                return None
            return Expected({"rank": r}, weights, weights - copies * r * (m + n), copies * r * (m + n))
    raise AssertionError(family)


def _wide(layer: LayerSpec, d: Fraction, round_to: int, weights: int, products: int) -> Expected | None:
    c_in, c_out = layer.in_channels, layer.out_channels
    if d == 1:
        return Expected({"in_channels": c_in, "out_channels": c_out}, weights, weights)
    unit = lcm(round_to, 1 if layer.depthwise else layer.groups, layer.heads or 1)
    if layer.depthwise:
        w_in = w_out = first(lambda w: w * d >= c_out, unit)
        capacity = w_out * prod(layer.kernel)
    elif products:
        per_channel = products // c_out
        w_in = w_out = first(lambda w: 4 * w * w * d + per_channel * w >= weights + products, unit)
        capacity = 4 * w_out * w_out
        weights += products - per_channel * w_out
        if weights <= 0:
            return None
    else:
        w_in = first(lambda w: w * w * d >= c_in * c_in, unit)
        w_out = first(lambda w: w * w * d >= c_out * c_out, unit)
        capacity = w_in // layer.groups * prod(layer.kernel) * w_out
    return Expected({"in_channels": w_in, "out_channels": w_out}, capacity, weights)


def products_of(layer: LayerSpec, structure: Mapping[str, Any]) -> int:
    if layer.kind is not Kind.ATTENTION:
        return 0
    return 2 * layer.positions * structure.get("out_channels", layer.out_channels)


# --- acceptance: more than a thousand random layers -------------------------------------------------


@pytest.mark.parametrize("family", MASKED)
@many
@given(layer=layers, sparsity=sparsities, round_to=st.sampled_from((1, 1, 1, 2, 8)))
def test_every_layer_closes_to_the_mac_at_the_integers_of_a_brute_force_search(
    family: str, layer: LayerSpec, sparsity: Fraction, round_to: int
) -> None:
    s = solve(layer, FAMILIES[family], sparsity, round_to=round_to, throw=False)
    if layer.positions == 0:
        assert s.outcome is Outcome.FREE
        assert (s.macs, s.dense_macs, s.residual_macs) == (0, 0, 0)
        return
    if layer.depthwise and family != "wide":
        assert s.outcome is Outcome.LEFT_ALONE
        assert s.residual_macs == 0
        assert s.nnz == s.capacity == layer.out_channels * prod(layer.kernel)
        return
    expected = brute_force(layer, family, sparsity, round_to)
    if expected is None:
        assert s.outcome is Outcome.INFEASIBLE
        assert s.nnz is None
        assert s.macs is None
        return
    assert s.outcome is Outcome.EXACT, s.reason
    assert {key: s.structure[key] for key in expected.structure} == expected.structure
    assert (s.capacity, s.nnz, s.dense_weights) == (expected.capacity, expected.nnz, expected.dense_weights)
    spent = layer.positions * (s.nnz + s.dense_weights + products_of(layer, s.structure))
    dense = layer.positions * (
        (4 if layer.kind is Kind.ATTENTION else 1)
        * (layer.in_channels // layer.groups * prod(layer.kernel) * layer.out_channels)
        + products_of(layer, {})
    )
    assert (s.macs, s.dense_macs, s.residual_macs) == (spent, dense, 0)
    assert 0 < s.nnz <= s.capacity
    assert s.cardinality.maskable_weights == s.capacity


@some
@given(layer=layers.filter(lambda layer: layer.positions), sparsity=sparsities)
def test_capacity_at_the_density_asked_for_covers_the_budget(layer: LayerSpec, sparsity: Fraction) -> None:
    for family in ("wide", "parallel", "factorized"):
        s = solve(layer, FAMILIES[family], sparsity, throw=False)
        if s.outcome is Outcome.EXACT:
            assert (
                s.capacity * (1 - sparsity) >= s.nnz
            )  # so the real density is never above the one asked for
            assert s.density <= 1 - sparsity


@pytest.mark.parametrize("family", ["wide", "parallel", "doped"])
@some
@given(layer=layers, round_to=st.sampled_from((1, 8)))
def test_no_sparsity_is_the_identity(family: str, layer: LayerSpec, round_to: int) -> None:
    s = solve(layer, FAMILIES[family], Fraction(0), round_to=round_to)
    assert s.nnz == s.capacity == layer.weights
    assert s.macs == s.dense_macs == layer.dense_macs
    assert s.dense_weights == 0
    same = {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "multiplier": 1,
        "branches": 1,
        "rank": 0,
    }
    assert all(same[key] == value for key, value in s.structure.items())


@some
@given(layer=st.one_of(convolutions(), linears(), attentions()), sparsity=sparsities)
def test_an_infeasible_rank_names_the_nearest_sparsity_that_is_feasible(
    layer: LayerSpec, sparsity: Fraction
) -> None:
    s = solve(layer, FAMILIES["doped"], sparsity, throw=False)
    if s.outcome is not Outcome.INFEASIBLE:
        return
    assert layer.name in s.reason
    named = Fraction(re.search(r"nearest feasible sparsity is (\d+(?:\.\d+)?)", s.reason)[1])
    assert solve(layer, FAMILIES["doped"], named).residual_macs == 0
    nearer = (
        Fraction(i, 1000) for i in range(1000) if abs(Fraction(i, 1000) - sparsity) < abs(named - sparsity)
    )
    assert all(brute_force(layer, "doped", candidate) is None for candidate in nearer)
    with pytest.raises(InfeasibleError, match="nearest feasible"):
        solve(layer, FAMILIES["doped"], sparsity)


@some
@given(layer=st.one_of(convolutions(), linears(), attentions(), depthwise()), sparsity=sparsities)
def test_low_rank_spends_what_whole_ranks_can_and_never_more(layer: LayerSpec, sparsity: Fraction) -> None:
    s = solve(layer, FAMILIES["lowrank"], sparsity, throw=False)
    if layer.depthwise:
        assert s.outcome is Outcome.LEFT_ALONE
        return
    if s.outcome is Outcome.INFEASIBLE:
        return
    assert s.residual_macs >= 0
    wide_in, wide_out = int(s.structure["in_channels"]), int(s.structure["out_channels"])
    copies = 4 if layer.kind is Kind.ATTENTION else 1
    one_rank = copies * sum(matrix(layer, wide_in, wide_out)) * layer.positions
    assert s.nnz == s.capacity == 0
    assert s.dense_weights * layer.positions == s.structure["rank"] * one_rank
    assert s.structure["rank"] % layer.groups == 0
    assert s.residual_macs < layer.groups * one_rank  # another rank would not fit
    assert wide_in**2 * (1 - sparsity) >= layer.in_channels**2


@some
@given(
    layer=st.one_of(convolutions(), linears(), attentions()),
    pattern=st.sampled_from(("1:2", "2:4", "2:8T", "4:8", "1:8")),
)
def test_n_of_m_keeps_its_pattern_exactly_and_never_overspends(layer: LayerSpec, pattern: str) -> None:
    kept, of = map(int, pattern.rstrip("T").split(":"))
    mask = parse_mask(pattern)
    s = solve(layer, FAMILIES["nm"], 1 - Fraction(kept, of), mask=mask, throw=False)
    if s.outcome is Outcome.INFEASIBLE:
        assert pattern in s.reason
        return
    assert s.nnz * of == s.capacity * kept
    assert s.residual_macs >= 0
    m, n = matrix(layer, int(s.structure["in_channels"]), int(s.structure["out_channels"]))
    assert m % of == 0
    assert not pattern.endswith("T") or n % of == 0


@some
@given(
    layer=st.one_of(convolutions(), linears()),
    sparsity=sparsities,
    text=st.sampled_from(("block1x2", "block2x2", "fan-in")),
)
def test_structured_masks_leave_less_than_one_step(layer: LayerSpec, sparsity: Fraction, text: str) -> None:
    s = solve(layer, FAMILIES["wide"], sparsity, mask=parse_mask(text), throw=False)
    if s.outcome is Outcome.INFEASIBLE:
        return
    _, neurons = matrix(layer, int(s.structure["in_channels"]), int(s.structure["out_channels"]))
    step = neurons if text == "fan-in" else 4 if text == "block2x2" else 2
    assert s.nnz % step == 0
    assert 0 <= s.residual_macs < step * layer.positions
    assert (s.outcome is Outcome.EXACT) == (s.residual_macs == 0)


# --- known answers -----------------------------------------------------------------------------------


def test_64_channels_at_one_half_become_91() -> None:
    s = solve(parse_layer("linear:64-64"), FAMILIES["wide"], Fraction(1, 2))
    assert (s.structure["in_channels"], s.structure["out_channels"]) == (91, 91)
    assert round(float(s.density), 4) == 0.4946
    assert s.structure["multiplier"] == pytest.approx(sqrt(2), rel=1e-15)


@pytest.mark.parametrize(
    ("sparsity", "rounded", "covering"), [("1/2", 90, 91), ("3/4", 128, 128), ("9/10", 202, 203)]
)
def test_widths_of_resnet18_beside_the_reference_implementation(
    sparsity: str, rounded: int, covering: int
) -> None:
    """The reference rounds the width down, so its capacity does not cover the budget; ours is the next one up."""
    s = Fraction(sparsity)
    assert int(64 * sqrt(round(1 / float(1 - s)))) == rounded
    assert solve(parse_layer("conv3x3:64-64"), FAMILIES["wide"], s).structure["out_channels"] == covering
    assert covering**2 * (1 - s) >= 64**2 > (covering - 1) ** 2 * (1 - s)
    assert rounded == isqrt(int(64**2 / (1 - s)))


@pytest.mark.parametrize("sparsity", ["1/2", "3/4", "9/10"])
def test_depthwise_alone_widens_by_one_over_density(sparsity: str) -> None:
    s = solve(parse_layer("dwconv3x3:40@7x7"), FAMILIES["wide"], Fraction(sparsity))
    k = 1 / (1 - Fraction(sparsity))
    assert s.closed_form == "k = 1/d"
    assert s.structure["multiplier"] == k
    assert s.structure["out_channels"] == s.structure["in_channels"] == 40 * k
    assert s.density == 1 - Fraction(sparsity)


@pytest.mark.parametrize(("round_to", "width"), [(1, 91), (8, 96), (16, 96), (64, 128)])
def test_widths_are_rounded_up_to_the_multiple_asked_for(round_to: int, width: int) -> None:
    s = solve(parse_layer("conv3x3:64-64@8x8"), FAMILIES["wide"], Fraction(1, 2), round_to=round_to)
    assert (s.structure["in_channels"], s.structure["out_channels"], s.residual_macs) == (width, width, 0)


def test_attention_pays_for_the_products_that_widening_adds() -> None:
    """64 wide, 10 tokens: 4·64² + 2·10·64 MACs per token; at width w the products cost 20·w of them."""
    s = solve(parse_layer("attention:64@10,heads=4"), FAMILIES["wide"], Fraction(1, 2))
    assert s.dense_macs == 10 * (4 * 64 * 64 + 2 * 10 * 64)
    assert s.structure["out_channels"] == 92
    assert s.nnz == 4 * 64 * 64 + 2 * 10 * 64 - 2 * 10 * 92
    assert s.residual_macs == 0


def test_attention_of_more_tokens_than_width_is_refused_where_products_alone_overspend() -> None:
    s = solve(parse_layer("attention:8@500"), FAMILIES["wide"], Fraction(1, 2), round_to=64, throw=False)
    assert s.outcome is Outcome.INFEASIBLE
    assert "products" in s.reason
    assert "nearest feasible sparsity is 0." in s.reason


def test_products_that_leave_no_weight_at_all_are_refused() -> None:
    """4·6² + 2·1·6 = 156 = 2·1·78: at width 78 nothing would be left to mask."""
    s = solve(parse_layer("attention:6@1"), FAMILIES["wide"], Fraction(1, 2), round_to=78, throw=False)
    assert s.outcome is Outcome.INFEASIBLE


# --- acceptance: closed forms of a convolution with symbolic channels --------------------------------


@pytest.mark.parametrize(
    ("family", "closed_form", "structure", "space"),
    [
        ("wide", "k = 2", {"in_channels": None, "out_channels": None, "multiplier": 2}, "36·C_in·C_out"),
        ("parallel", "b = 4", {"branches": 4}, "36·C_in·C_out"),
        ("factorized", "r = 36·C_in·C_out/(9·C_in+C_out)", {"rank": None}, "36·C_in·C_out"),
        ("doped", "r = 27·C_in·C_out/(4·(9·C_in+C_out))", {"rank": None}, "9·C_in·C_out"),
        ("nm", "k = 2", {"in_channels": None, "out_channels": None, "multiplier": 2}, "36·C_in·C_out"),
    ],
)
def test_a_3x3_convolution_at_three_quarters(
    family: str, closed_form: str, structure: dict[str, Any], space: str
) -> None:
    s = solve(parse_layer("conv3x3"), FAMILIES[family], Fraction(3, 4))
    assert s.outcome is Outcome.SYMBOLIC
    assert (s.closed_form, s.search_space) == (closed_form, space)
    assert s.structure == structure
    assert s.nnz is None
    assert s.residual_macs is None


def test_the_low_rank_control_has_a_rank_and_no_masks() -> None:
    s = solve(parse_layer("conv3x3"), FAMILIES["lowrank"], Fraction(3, 4))
    assert s.closed_form == "r = 9·C_in·C_out/(2·(9·C_in+C_out))"
    assert s.search_space == "0"
    assert s.structure["rank"] is None


# --- masks and densities that cannot be --------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "sparsity", "mask", "error", "says"),
    [
        ("nm", "1/3", None, InfeasibleError, "nearest is 5:8, sparsity 0.375"),
        ("nm", "99/100", None, InfeasibleError, "nearest is 1:8, sparsity 0.875"),
        ("nm", "1/2", "block4x4", InputError, "takes an N:M mask"),
        ("wide", "1/2", "1:4", InfeasibleError, "the nearest is `sparsity='0.75'`"),
        ("parallel", "1/2", "2:4", InfeasibleError, "divisible by 4, but there are 30; the nearest is 32"),
        ("parallel", "1/2", "block4x4", InfeasibleError, "the nearest size that can is 32×32"),
        ("doped", "1/100", None, InfeasibleError, "would need a rank of 0.15"),
    ],
)
def test_requests_that_cannot_be_say_what_can(
    family: str, sparsity: str, mask: str | None, error: type[Exception], says: str
) -> None:
    structure = parse_mask(mask) if mask else None
    with pytest.raises(error, match=re.escape(says)):
        solve(parse_layer("linear:30-30"), FAMILIES[family], Fraction(sparsity), mask=structure)


def test_nearest_sparsity_is_nearest_to_the_one_given_and_not_to_its_rounding() -> None:
    """A rank needs s·mn/(m+n) ≥ 1, here s ≥ 1/3; 0.3333 rounds to 0.333, and 0.334 is the nearest thousandth above."""
    layer = parse_layer("linear:6-6")
    with pytest.raises(InfeasibleError, match=r"nearest feasible sparsity is 0\.334\."):
        solve(layer, FAMILIES["doped"], Fraction(3333, 10000))
    with pytest.raises(InfeasibleError, match=r"nearest feasible sparsity is 0\.1\."):
        solve(parse_layer("linear:20-20"), FAMILIES["doped"], Fraction(999, 10000))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "layer",
    [
        "linear:2147483648-2147483649",
        "linear:999999999999-999999999999@999999999999",
        "attention:999999999999@9999999",
        "conv3x3:999999999-999999999@100000000x10000000",
        "dwconv3x3:999999999@999999999999",
        "convt3x3:999999999-999999999@999999999",
        "linear:1-999999999999",
    ],
)
def test_the_largest_layers_close_as_small_ones_do(layer: str, family: str) -> None:
    """What a layer is worth is a whole number of any size: nothing of it passes through a machine's word."""
    parsed = parse_layer(layer)
    try:
        found = solve(parsed, FAMILIES[family], Fraction(1, 2))
    except InfeasibleError:
        return  # a rank or a pattern that does not fit, said so
    assert found.macs is not None and found.nnz is not None
    masked = found.macs - parsed.positions * found.dense_uses
    if parsed.kind is not Kind.ATTENTION:
        assert masked == parsed.positions * found.nnz
    if found.outcome is Outcome.EXACT:
        assert found.macs == parsed.dense_macs


def test_a_layer_beyond_a_machine_word_has_its_budget_and_its_bits() -> None:
    # nnz closes the budget: m·n = 2**31·(2**31 + 1); and C(N, nnz) at one half is close to N bits
    found = solve(parse_layer("linear:2147483648-2147483649"), FAMILIES["wide"], Fraction(1, 2))
    assert found.nnz == 2**31 * (2**31 + 1) == found.macs
    assert found.structure["out_channels"] == 3037000502  # ceil(sqrt(2)·(2**31 + 1)), by bc
    assert found.cardinality.log2_masks == pytest.approx(found.capacity, rel=1e-8)


@pytest.mark.parametrize(
    ("layer", "sparsity", "mask"),
    [("linear:10-10", "0.9", "block16x16"), ("linear:64-64", "0.9999", "fan-in")],
)
def test_a_layer_without_a_weight_is_no_solution(layer: str, sparsity: str, mask: str) -> None:
    with pytest.raises(InfeasibleError, match="leave no weight of"):
        ift.solve(layer, "wide", sparsity, mask=mask)


@pytest.mark.parametrize(
    ("layer", "family", "options"),
    [
        ("linear:64-64", "nm", {}),
        ("conv3x3:64-64", "wide", {"mask": "2:4"}),
        ("attention:8@500", "wide", {"round_to": 64}),
    ],
)
def test_a_width_that_cannot_be_is_shown_as_such(layer: str, family: str, options: dict[str, Any]) -> None:
    mask = parse_mask(options.pop("mask")) if "mask" in options else None
    found = solve(parse_layer(layer), FAMILIES[family], Fraction("0.7"), mask=mask, throw=False, **options)
    assert found.outcome is Outcome.INFEASIBLE
    assert structure_text(found) == "no width"


def test_channels_of_a_depthwise_layer_keep_their_filters() -> None:
    """The output of 64 channels has two filters for each of 32 inputs."""
    layer = LayerSpec("dw", Kind.CONV2D, 32, 64, (3, 3), 32, 49, depthwise=True)
    found = ift.solve(layer, "wide", "1/2").structure
    assert (found["in_channels"], found["out_channels"]) == (64, 128)


def test_a_family_of_one_s_own_closes_a_stack_of_experts() -> None:
    b, m, n, d = sympy.symbols("b m n d", positive=True)
    own = ift.family("own", cost=b * m * n * d, unknown=b)
    found = ift.solve("linear:64-64,experts=4", own, "3/4")
    assert (found.nnz, found.residual_macs) == (4 * 64 * 64, 0)


def test_groups_that_keep_fewer_are_told() -> None:
    """Three branches at 3/8 have capacity for an eighth more than the budget."""
    found = ift.solve("linear:64-64", "parallel", "5/8", mask="3:8")
    assert (found.structure["branches"], found.nnz, found.residual_macs) == (3, 4096, 0)
    assert found.reason == "33.33% of the groups keep 2 of 8 to close the budget"
    assert any(found.reason in note for note in solutions_table("layer", [found], Convention.MAC).notes)
    assert ift.solve("linear:64-64", "wide", "3/4", mask="2:8").reason == ""
