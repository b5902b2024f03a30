"""One cost expression gives everything: closed form, integers, capacity, search space, steps."""

import subprocess
import sys
from fractions import Fraction
from functools import cache
from itertools import count, takewhile
from math import comb, isclose, log2
from pathlib import Path

import pytest
import sympy
from hypothesis import example, given, settings
from hypothesis import strategies as st

import iftplan.families.closed_forms
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families import symbols as t
from iftplan.families.builtin import FAMILIES
from iftplan.families.derivation import derive, family, generate
from iftplan.families.family import Family
from iftplan.families.layer_costs import layer_cost
from iftplan.families.solution import Outcome, Step
from iftplan.families.solver import solve
from iftplan.families.steps import explain, specialise, steps
from iftplan.families.transforms import DEFINITIONS
from iftplan.families.transforms.definition import Definition
from iftplan.models.notation import parse_layer
from iftplan.models.spec import Kind, LayerSpec
from tests.support.layer_strategies import layers

some = settings(max_examples=60, deadline=None)
few = settings(max_examples=12, deadline=None)  # SymPy takes its time
sizes = st.integers(1, 400)
densities = st.fractions(Fraction(1, 50), 1, max_denominator=50)


def rational(value: Fraction) -> sympy.Rational:
    return sympy.Rational(Fraction(value).numerator, Fraction(value).denominator)


# --- formula and code cannot disagree ----------------------------------------------------------------


def test_the_committed_closed_forms_are_what_sympy_gives_byte_for_byte() -> None:
    assert Path(iftplan.families.closed_forms.__file__).read_bytes() == generate().encode()


def test_the_generator_runs_as_a_command() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "iftplan.families.derivation"], capture_output=True, text=True, check=True
    )
    assert made.stdout == generate()


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
@pytest.mark.parametrize("degree", [1, 2])
@few
@given(m=sizes, n=sizes, d=densities, k=st.integers(1, 9))
def test_the_solution_satisfies_its_equation(
    definition: Definition, degree: int, m: int, n: int, d: Fraction, k: int
) -> None:
    derivation = derive(definition)
    known = {t.m: m, t.n: n, t.d: rational(d), t.e: degree}
    if derivation.unknown != t.k:
        known[t.k] = k
    solution = derivation.solution.subs(known)
    cost = derivation.cost.subs(known).subs(derivation.unknown, solution)
    assert sympy.simplify(cost - m * n) == 0
    assert sympy.simplify(derivation.cost - derivation.masked * t.d - derivation.fixed) == 0


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
@some
@given(m=sizes, n=sizes, d=densities, tokens=st.integers(0, 1000), k=st.integers(1, 9))
def test_the_generated_code_satisfies_the_equation_it_was_generated_from(
    definition: Definition, m: int, n: int, d: Fraction, tokens: int, k: int
) -> None:
    """Both sides of `cost + k·A = m·n + A`, with the 2·T·n MACs of attention for A where the width is solved for."""
    form = FAMILIES[definition.name].form
    solves_width = definition.unknown == "k"
    for root, degree, extra in ((form.full, 2, 0), (form.outputs, 1, 0), (form.products, 2, 2 * tokens * n)):
        x = float(root.value(m, n, d, k, extra))
        cost = definition.cost().subs(t.e, degree)
        dense = m * n
        if solves_width:
            cost, dense = cost + t.k * extra, dense + extra
        else:
            cost = cost.subs(t.k, k)
        at = {t.m: m, t.n: n, t.d: float(d), t.k: x, t.b: x, t.r: x}
        assert isclose(float(cost.subs(at)), dense, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.name)
@some
@given(m=sizes, n=sizes, x=st.integers(1, 60), degree=st.sampled_from((1, 2)), d=densities)
def test_masked_and_fixed_weights_add_up_to_the_cost(
    definition: Definition, m: int, n: int, x: int, degree: int, d: Fraction
) -> None:
    form = FAMILIES[definition.name].form
    unknown = sympy.Symbol(definition.unknown, positive=True)
    at = {t.m: m, t.n: n, t.d: rational(d), t.e: degree, unknown: x}
    cost = definition.cost().subs(at).subs(t.k, 1)
    parts = form.masked(m, n, x, degree, 1) * d + form.fixed(m, n, x, degree, 1)
    if isinstance(parts, Fraction):
        assert rational(parts) == cost
    else:  # as many blocks as the root of the channels
        assert isclose(float(parts), float(cost))


# --- costs in symbols and in numbers are the same -----------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(layers)
def test_symbolic_costs_are_what_layer_specs_count(layer: LayerSpec) -> None:
    cost = layer_cost(layer, t)
    at = {
        **dict.fromkeys((t.C_in, t.D_in), layer.in_channels),
        **dict.fromkeys((t.C_out, t.D_out), layer.out_channels),
        t.T: layer.positions,
    }
    dense = sympy.sympify(cost.dense).subs(at)
    assert dense * layer.positions == layer.dense_macs
    assert sympy.sympify(cost.products).subs(at) == layer.products_per_position
    if layer.positions:
        assert sympy.sympify(cost.fan_in).subs(at) == layer.fan_in
        assert sympy.sympify(cost.fan_out).subs(at) == layer.fan_out
        assert cost.copies == layer.copies
    assert cost.degree == (1 if layer.depthwise else 2)


def test_every_kind_has_a_cost() -> None:
    words = {
        "linear", "conv1d3", "conv3x3", "conv3d3x3x3", "convt1d2", "convt2x2", "convt3d2x2x2",
        "embedding", "attention", "norm", "activation",
    }  # fmt: skip
    assert {parse_layer(word).kind for word in words} == set(Kind)
    for word in words:
        layer_cost(parse_layer(word), t)


# --- a family of one's own, from nothing but its cost -------------------------------------------------

q = sympy.Symbol("q", positive=True)  # an unknown that no family of ours has

OWN = {
    "tied": (2 * t.r * t.m * t.d, t.r, "r = n/(2·d)"),
    "shared": (t.b * t.m * t.n * t.d + t.m, t.b, "b = (n-1)/(d·n)"),
    "half-dense branches": (t.b * (t.m * t.n * t.d + t.m), t.b, "b = n/(d·n+1)"),
    "two pairs": (2 * t.r * (t.m + t.n) * t.d, t.r, "r = m·n/(2·d·(m+n))"),
    "two shared": (2 * t.b * t.m * t.n * t.d + t.m + t.n, t.b, None),
    "core": (t.d * (q * (t.m + t.n) + q**2), q, None),
    "doped core": (t.m * t.n * t.d + q * (t.m + t.n) + q**2, q, None),
}


@cache
def own(name: str) -> Family:
    cost, unknown, _ = OWN[name]
    return family(name, cost=cost, unknown=unknown, structure="rank" if unknown in (t.r, q) else "branches")


@pytest.mark.parametrize("name", OWN)
def test_a_family_of_ones_own_has_a_closed_form(name: str) -> None:
    cost, unknown, expected = OWN[name]
    form = own(name).form
    assert expected in (None, form.full.text)
    assert form.full.text.startswith(f"{unknown} = ")
    for m, n, d in ((64, 96, Fraction(1, 2)), (576, 128, Fraction(1, 10)), (30, 7, Fraction(3, 4))):
        x = float(form.full.value(m, n, d, 1.0, 0))
        at = {t.m: m, t.n: n, t.d: rational(d), unknown: x}
        assert isclose(float(cost.subs(at)), m * n, rel_tol=1e-12)


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=40, deadline=None)
@example(d_in=19, d_out=6, percent=88)
@given(d_in=st.integers(1, 40), d_out=st.integers(2, 40), percent=st.integers(1, 95))
def test_a_family_of_ones_own_has_integers_nnz_and_cardinality(
    name: str, d_in: int, d_out: int, percent: int
) -> None:
    cost, unknown, _ = OWN[name]
    s = Fraction(percent, 100)
    made = own(name)
    solved = solve(parse_layer(f"linear:{d_in}-{d_out}"), made, s, throw=False)
    at = {t.m: d_in, t.n: d_out, t.d: rational(1 - s)}
    of_all = sympy.lambdify((t.m, t.n, t.d, unknown), cost, "math")

    def real(x: int) -> Fraction:  # exact, for a structure may cost just what there is
        return of_all(*(Fraction(value) for value in (d_in, d_out, 1 - s, x)))

    if sympy.diff(cost.subs(t.d, 0), unknown) == 0:  # what stays dense does not grow: cover the budget
        x = next(x for x in count(1) if real(x) >= d_in * d_out)
    else:
        x = max(takewhile(lambda x: real(x) <= d_in * d_out, count(1)), default=None)
    if x is None:
        assert solved.outcome is Outcome.INFEASIBLE
        return
    capacity = int(sympy.diff(cost, t.d).subs({**at, unknown: x}))
    dense = int(cost.subs({**at, t.d: 0, unknown: x}))
    if dense >= d_in * d_out:
        assert solved.outcome is Outcome.INFEASIBLE
        return
    assert solved.outcome is Outcome.EXACT, solved.reason
    assert solved.structure == {made.definition.structure: x}
    assert (solved.capacity, solved.dense_weights) == (capacity, dense)
    assert solved.nnz == d_in * d_out - dense
    assert solved.cardinality.maskable_weights == capacity
    assert isclose(solved.cardinality.log2_masks, log2(comb(capacity, solved.nnz)), rel_tol=1e-9)


def test_a_width_that_only_the_outputs_have_leaves_the_inputs_alone() -> None:
    outputs = family("outputs", cost=t.k * t.m * t.n * t.d, unknown=t.k)
    s = solve(parse_layer("conv3x3:10-20@8x8"), outputs, Fraction(2, 3))
    assert outputs.form.full.text == "k = 1/d"
    assert not outputs.definition.widens
    assert s.structure == {"in_channels": 10, "out_channels": 60, "multiplier": 3}
    assert (s.nnz, s.capacity, s.residual_macs) == (9 * 10 * 20, 9 * 10 * 60, 0)


@pytest.mark.parametrize("layer", ["linear:64-96@10", "attention:64@10,heads=4"])
@pytest.mark.parametrize("extra", [t.m, t.n])
def test_a_wide_family_of_ones_own_meets_its_equation_beside_dense_terms(
    layer: str, extra: sympy.Symbol
) -> None:
    spec = parse_layer(layer)
    cost = t.k**2 * t.m * t.n * t.d + t.k * extra
    made = family("with scales", cost=cost, unknown=t.k)
    s = solve(spec, made, Fraction(3, 4))
    at = {t.m: spec.fan_in, t.n: spec.fan_out, t.d: sympy.Rational(1, 4)}
    k = s.structure["multiplier"]
    total = spec.copies * cost.subs(at).subs(t.k, k) + k * spec.products_per_position
    assert isclose(float(total), spec.weights + spec.products_per_position, rel_tol=1e-12)


@pytest.mark.parametrize(
    "definition", [x for x in DEFINITIONS if x.name != "nm"], ids=lambda definition: definition.name
)
@pytest.mark.parametrize(
    "layer", ["conv3x3:24-40@5x5,groups=4", "linear:30-7", "attention:64@10,heads=4", "dwconv5x5:12"]
)
def test_our_own_families_follow_from_their_costs_as_a_users_would(
    definition: Definition, layer: str
) -> None:
    made = family(
        definition.name,
        cost=definition.cost(),
        unknown=sympy.Symbol(definition.unknown, positive=True),
        structure=definition.structure,
        grid=definition.grid,
    )
    for sparsity in (Fraction(0), Fraction(1, 2), Fraction(9, 10)):
        ours = solve(parse_layer(layer), FAMILIES[definition.name], sparsity, throw=False)
        theirs = solve(parse_layer(layer), made, sparsity, throw=False)
        assert theirs == ours
        assert repr(theirs) == repr(ours)  # a Fraction is not a float of equal value


@pytest.mark.parametrize(
    ("cost", "unknown", "error", "says"),
    [
        (t.b * t.m * t.n * t.d**2, t.b, InputError, "not linear in the density d"),
        (t.b * t.m * t.n * sympy.sqrt(t.d), t.b, InputError, "not linear in the density d"),
        (t.m * t.n * t.d, t.b, InputError, "does not contain the unknown b"),
        (t.b * t.m * t.n * t.d + 2 * t.m * t.n, t.b, InfeasibleError, "no positive root in b"),
        (t.k**3 * t.m * t.n * t.d, t.k, InputError, "once (outputs) or squared"),
        (t.b * t.m * t.n * t.d * sympy.Symbol("z"), t.b, InputError, "z"),
        (sympy.Symbol("u") * t.m * t.n * t.d, sympy.Symbol("u"), InputError, "positive=True"),
        (t.b * t.C_in * t.n * t.d, t.b, InputError, "C_in"),
    ],
)
def test_a_cost_that_cannot_be_solved_says_why(
    cost: sympy.Expr, unknown: sympy.Symbol, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        family("mine", cost=cost, unknown=unknown)
    assert says in str(caught.value)
    assert "'mine'" in str(caught.value)


# --- the derivation that --steps prints ---------------------------------------------------------------

NAMES = {str(symbol): symbol for symbol in vars(t).values() if isinstance(symbol, sympy.Symbol)}


def read_back(text: str) -> sympy.Expr:
    """An expression from what people are shown."""
    return sympy.sympify(text.replace("·", "*").replace("^", "**"), locals=NAMES)


def sides(step: Step) -> tuple[str, sympy.Expr]:
    left, _, right = step.equation.rpartition(" = ")
    return left, read_back(right)


SAMPLE = {t.C_in: 24, t.C_out: 40, t.D_in: 56, t.D_out: 72, t.T: 10}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "layer", ["conv3x3", "linear", "conv1d5,groups=4", "convt2x2", "dwconv3x3", "attention"]
)
def test_every_step_follows_from_the_one_before(
    name: str, layer: str, density: Fraction = Fraction(1, 3)
) -> None:
    spec = parse_layer(layer)
    dense, cost, equation, solved, *between, last = steps(spec, FAMILIES[name], density)
    assert sides(dense)[0] == "dense"
    assert sides(cost)[0] == "cost"
    left, right = (read_back(side) for side in equation.equation.split(" = "))
    assert left.equals(sides(cost)[1])
    assert right.equals(sides(dense)[1])
    assert right.equals(sympy.sympify(layer_cost(spec, t).dense))
    unknown, solution = NAMES[sides(solved)[0]], sides(solved)[1]
    at = {**SAMPLE, t.d: rational(density)}
    for step in between:
        assert sides(step)[0] == "k"
        at[t.k] = sides(step)[1].subs(at)
    solution = solution.subs(at)
    assert solution > 0
    at[unknown] = solution
    if t.k not in at and left.has(t.k):
        at[t.k] = 1 / sympy.sqrt(rational(density))
    assert sympy.simplify((left - right).subs(at)) == 0
    assert sympy.simplify(sides(last)[1].subs(SAMPLE) - solution) == 0
    assert specialise(spec, FAMILIES[name], density).text == last.equation


def test_a_kind_that_contracts_nothing_has_one_step() -> None:
    (step,) = steps(parse_layer("norm"), FAMILIES["wide"], Fraction(1, 2))
    assert step.equation == "dense = 0"


def test_a_derivation_ends_in_the_numbers_that_it_explains() -> None:
    solution = solve(parse_layer("conv3x3:64-128@16x16"), FAMILIES["doped"], Fraction(1, 2))
    last = explain(solution, FAMILIES["doped"]).steps[-1].equation
    left, right = last.split(" = ")
    positions, kept = right.split("·")
    assert int(left) == solution.dense_macs
    assert int(positions) * sum(map(int, kept.strip("()").split("+"))) == solution.dense_macs


def test_attention_keeps_one_width_under_every_pattern() -> None:
    solution = solve(parse_layer("attention:768@1024,heads=12"), FAMILIES["nm"], Fraction(1, 2))
    assert solution.structure["in_channels"] == solution.structure["out_channels"]


def test_a_root_that_is_positive_at_high_sparsity_alone_is_a_root() -> None:
    """r = m·n·(1-3d)/(m+n) needs a sparsity above 2/3."""
    m, n, d, r = sympy.symbols("m n d r", positive=True)
    own = family("d3", cost=3 * m * n * d + r * (m + n), unknown=r)
    assert solve(parse_layer("linear:64-64"), own, Fraction(3, 4)).structure == {"structure": 8}


def test_a_width_under_a_root_is_refused_in_words() -> None:
    k, m, n, d = sympy.symbols("k m n d", positive=True)
    with pytest.raises(InputError, match="enters a layer's cost once"):
        family("x", cost=k * sympy.sqrt(k) * m * n * d, unknown=k)
