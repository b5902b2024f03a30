"""Closed forms of layers with symbolic channels need no SymPy, and are what SymPy writes, character for character."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan.families.builtin import FAMILIES
from iftplan.families.solver import solve
from iftplan.families.steps import specialise
from iftplan.families.symbolic.factored import Factored, factored, sqrt, symbol
from iftplan.families.symbolic.special import special_form
from iftplan.families.symbolic.writing import text
from iftplan.models.notation import parse_layer
from iftplan.models.spec import Kind, LayerSpec
from tests.support.layer_strategies import CONVOLUTIONS

KINDS = (
    "linear", "linear,groups=4", "conv1d5", "conv3x3", "conv3x3,groups=6", "conv3d3x1x2", "convt1d4", "convt3x3,groups=6",
    "dwconv3x3", "dwconvt1d3", "attention",
)  # fmt: skip
WRITTEN = tuple(
    name for name in FAMILIES if name not in ("btt", "butterfly", "kronecker")
)  # sums of roots, which are left to SymPy
SOLVED = tuple(name for name in WRITTEN if name != "nm")  # which is wide by another name
SPARSITIES = tuple(map(Fraction, "0 1/2 3/4 7/8 2/3 1/10 11/36 5/12 1/50".split()))  # noqa: SIM905  (one line)
SMALL = tuple(dict.fromkeys(Fraction(p, q) for q in range(1, 36) for p in range(1, q + 1)))
"""Densities whose roots simplify in every way: with and without square divisors above and below."""


def same(layer: LayerSpec, name: str, density: Fraction) -> None:
    ours, theirs = (of(layer, FAMILIES[name], density) for of in (special_form, specialise))
    assert ours == theirs
    assert type(ours.value) is type(theirs.value)


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_family_is_what_sympy_writes(kind: str, name: str) -> None:
    for sparsity in SPARSITIES:
        same(parse_layer(kind), name, 1 - sparsity)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide", "lowrank"])
def test_attention_at_every_third_small_density_is_what_sympy_writes(name: str) -> None:
    for density in SMALL[::3]:
        same(parse_layer("attention"), name, density)


@st.composite
def symbolic_layers(draw: st.DrawFn) -> LayerSpec:
    kind = draw(st.sampled_from((Kind.LINEAR, Kind.ATTENTION, *CONVOLUTIONS)))
    dims = kind.spatial_dims
    kernel = tuple(draw(st.lists(st.integers(1, 17), min_size=dims, max_size=dims)))
    depthwise = bool(dims) and draw(st.booleans())
    groups = 1 if depthwise or kind is Kind.ATTENTION else draw(st.integers(1, 64))
    return LayerSpec("any", kind, None, None, kernel, groups, depthwise=depthwise)


def test_nm_is_wide_heads_change_nothing_and_every_expert_has_masks_of_its_own() -> None:
    wide, nm = (
        special_form(parse_layer("conv3x3"), FAMILIES[name], Fraction(1, 8)) for name in ("wide", "nm")
    )
    assert wide == nm
    for kind, more in (("linear", ",experts=8"), ("attention", ",heads=4")):
        for family in (FAMILIES[name] for name in WRITTEN):
            plain, more_of = (
                special_form(parse_layer(k), family, Fraction(3, 8)) for k in (kind, kind + more)
            )
            assert plain.value == more_of.value
            if kind == "attention":
                assert plain == more_of
    found = special_form(parse_layer("linear,experts=4"), FAMILIES["wide"], Fraction(1, 4))
    assert found.search_space == "16·D_in·D_out"


@settings(max_examples=60, deadline=None)
@given(
    layer=symbolic_layers(),
    name=st.sampled_from(WRITTEN),
    density=st.fractions(Fraction(1, 10**6), 1, max_denominator=10**6),
)
def test_any_layer_at_any_density_is_what_sympy_writes(
    layer: LayerSpec, name: str, density: Fraction
) -> None:
    same(layer, name, density)


def test_sympy_answers_where_roots_have_too_many_digits() -> None:
    sparsity = Fraction("0.12345678901")
    with pytest.raises(OverflowError):
        special_form(parse_layer("linear"), FAMILIES["wide"], 1 - sparsity)
    found = solve(parse_layer("linear"), FAMILIES["wide"], sparsity)
    assert found.closed_form == specialise(parse_layer("linear"), FAMILIES["wide"], 1 - sparsity).text


def test_no_kind_needs_sympy() -> None:
    program = f"""
import sys
from fractions import Fraction
from iftplan.families.builtin import FAMILIES
from iftplan.families.solver import Outcome, solve
from iftplan.models.notation import parse_layer
for kind in {KINDS!r}:
    for name, family in FAMILIES.items():
        if name not in {WRITTEN!r}:
            continue
        found = solve(parse_layer(kind), family, Fraction(3, 8))
        stays = kind.startswith("dw") or found.outcome is Outcome.GROUPED
        assert found.outcome is Outcome.SYMBOLIC or stays, (kind, name)
assert "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_sympy_answers_for_sums_of_roots() -> None:
    with pytest.raises(OverflowError):
        special_form(parse_layer("linear"), FAMILIES["btt"], Fraction(1, 4))
    found = solve(parse_layer("linear"), FAMILIES["btt"], Fraction(3, 4))
    assert found.closed_form == specialise(parse_layer("linear"), FAMILIES["btt"], Fraction(1, 4)).text


# --- the algebra itself ---------------------------------------------------------------------------------

x, y = symbol("x"), symbol("y")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (factored(0), "0"),
        (factored(Fraction(-3, 4)), "-3/4"),
        (sqrt(factored(Fraction(8, 3))), "2·sqrt(6)/3"),
        (sqrt(factored(12)) * sqrt(factored(3)), "6"),
        (sqrt(factored(6)) ** -3, "sqrt(6)/36"),
        (x + x, "2·x"),
        (x - x, "0"),
        (2 * x + 4 * y, "2·(x+2·y)"),
        ((x + y) * x - x * y, "x^2"),
        (1 / (y + x), "1/(x+y)"),
        (y - 3 * x, "-(3·x-y)"),
        (sqrt(x**2 * y**2 * (x + y)), "x·y·sqrt(x+y)"),
    ],
)
def test_values_calculate(value: Factored, written: str) -> None:
    assert text(value) == written


def test_the_root_of_a_number_is_a_float() -> None:
    assert sqrt(Fraction(1, 4)) == 0.5
