"""Everything that follows from a family's cost expression, by SymPy: closed form, numeric code, steps.

`python -m iftplan.families.derivation` prints `iftplan/families/closed_forms.py`, so that a numeric answer needs no SymPy and
the code that computes it still is the solution that SymPy found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy
from sympy.printing.pycode import PythonCodePrinter

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.families import symbols as t
from iftplan.families.family import Family, Form, Root
from iftplan.families.symbols import text
from iftplan.families.transforms import DEFINITIONS, Definition
from iftplan.families.transforms.blocks import FactorGrid

Expr = Any  # SymPy publishes no types


@dataclass(frozen=True, slots=True)
class Derivation:
    """One family's equation and its solution, as SymPy expressions.

    Attributes:
        unknown: the symbol solved for.
        cost: MACs per position.
        solution: the unknown's one positive root.
        masked: the coefficient of d in the cost.
        fixed: the cost without its masked part.
    """

    definition: Definition
    unknown: Expr
    cost: Expr
    solution: Expr
    masked: Expr
    fixed: Expr

    @property
    def covers(self) -> bool:
        """Whether the structure is rounded up; it is rounded down if its dense part grows with it."""
        return not self.fixed.has(self.unknown)


def derive(definition: Definition) -> Derivation:
    """Solve the iso-FLOP equation `cost = m·n` for the family's structure.

    Raises:
        InputError: the cost is not linear in d, or does not contain the unknown.
        InfeasibleError: the equation has no positive root.

    Example:
        >>> from iftplan.families.transforms import PARALLEL
        >>> derive(PARALLEL).solution
        1/d
    """
    cost = sympy.sympify(definition.cost())
    unknown = sympy.Symbol(definition.unknown, positive=True)
    _check_symbols(definition, cost, unknown)
    masked = sympy.factor(sympy.diff(cost, t.d))
    if masked.has(t.d):
        raise InputError(
            f"family {definition.name!r}: its cost {text(cost)} is not linear in the density d, so no number of "
            "weights can meet a budget; write the structure and the density as separate factors."
        )
    fixed = sympy.factor(sympy.expand(cost - t.d * masked))
    solution = positive_root(cost - t.m * t.n, unknown, f"family {definition.name!r}")
    return Derivation(definition, unknown, cost, solution, masked, fixed)


def _check_symbols(definition: Definition, cost: Expr, unknown: Expr) -> None:
    """Refuse a cost whose symbols no layer gives a value to."""
    if unknown not in cost.free_symbols:
        raise InputError(
            f"family {definition.name!r}: its cost {text(cost)} does not contain the unknown {unknown}; use "
            f"symbols of iftplan.families.symbols, or make your own with sympy.Symbol({definition.unknown!r}, "
            "positive=True)."
        )
    if foreign := cost.free_symbols - {unknown, t.m, t.n, t.d, t.e, t.k}:
        names = ", ".join(sorted(map(str, foreign)))
        raise InputError(
            f"family {definition.name!r}: its cost {text(cost)} contains {names}, which no layer has a value for; "
            f"write it in m, n, d, e, k of iftplan.families.symbols and the unknown {unknown}."
        )


def positive_root(equation: Expr, unknown: Expr, who: str) -> Expr:
    """The root of `equation = 0` that is positive for positive symbols.

    Args:
        equation: an expression that is zero at the root, in the symbols of `iftplan.families.symbols`.
        unknown: the symbol to solve for.
        who: the family's name, for messages.

    Raises:
        InfeasibleError: there is none.
    """
    roots = sympy.solve(equation, unknown)
    for sample in _SAMPLES:
        for root in roots:
            value = root.subs(sample)
            if value.is_real and value > 0:
                return sympy.factor(root)
    raise InfeasibleError(
        f"{who}: {text(equation)} = 0 has no positive root in {unknown} (found {roots or 'none'})."
    )


_REST = {t.d: sympy.Rational(1, 3), t.e: 2, t.k: sympy.Rational(17, 10), t.A: 11, t.T: 19, t.D_in: 29}
_SAMPLES = tuple(
    {**_REST, t.m: m, t.n: n, t.d: density}
    for density in (sympy.Rational(1, 3), sympy.Rational(1, 20))
    for m, n in ((37, 53), (53, 37), (5, 997), (997, 5))
)
"""Where a root has to be positive at least once: with fewer inputs than outputs, or more, at usual and at high sparsity."""


@check_arguments
def family(
    name: str,
    cost: Expr,
    unknown: Expr,
    *,
    title: str = "",
    structure: str = "structure",
    matrices: Callable[[int, int, int], tuple[tuple[int, int], ...]] | None = None,
    grid: Callable[[int, int], FactorGrid] | None = None,
) -> Family:
    """Family of your own, from its cost expression in the symbols of `iftplan.families.symbols`.

    Args:
        name: what to call it.
        cost: MACs per position, linear in the density `d`.
        unknown: the symbol to solve for.
        title: how people call it.
        structure: the key under which its integer appears in documents.
        matrices: shapes of its masked matrices, for masks with structure.
        grid: blocks at so many input and output channels, for products of factors in blocks; what they cost at whole
            sizes is then counted with their padding, and the cost is what it comes to where blocks divide.

    Raises:
        InputError: the cost is not linear in d, or does not contain the unknown.
        InfeasibleError: the equation has no positive root.

    Example:
        >>> from iftplan.families.symbols import b, d, m, n
        >>> shared = family("shared", cost=b * m * n * d + m, unknown=b)
        >>> shared.form.full.text
        'b = (n-1)/(d·n)'
    """
    widens = _degree(cost) == 2 if unknown == t.k else sympy.sympify(cost).has(t.k)
    definition = Definition(
        name, title or name, str(unknown), structure, lambda: cost, widens, matrices, grid=grid
    )
    return from_definition(definition)


def from_definition(definition: Definition) -> Family:
    """Family whose equation is derived from a definition and turned into numeric functions.

    Raises:
        InputError: a width multiplier enters the layer's cost neither once nor squared.
    """
    derivation = derive(definition)
    if derivation.unknown == t.k and _degree(derivation.cost) not in (1, 2):
        raise InputError(
            f"family {definition.name!r}: a width multiplier k enters a layer's cost once (outputs) or squared (inputs and outputs), not as in {text(derivation.cost)}."
        )
    full, outputs, products = (
        Root(*_texts(derivation.unknown, root), _compile(_KNOWN, root)) for root in roots(derivation)
    )
    masked, fixed = (_compile(_structure(derivation), part) for part in (derivation.masked, derivation.fixed))
    maskable = text(_search_space(derivation))
    cost = text(derivation.cost)
    return Family(definition, Form(cost, maskable, full, outputs, products, masked, fixed, derivation.covers))


def _degree(cost: Expr) -> Any:
    """How fast the cost grows with the width multiplier where inputs and outputs both do; None if not as a power."""
    try:
        return sympy.degree(sympy.sympify(cost).subs(t.e, 2), t.k)
    except sympy.PolynomialError:
        return None


def roots(derivation: Derivation) -> tuple[Expr, Expr, Expr]:
    """Solutions for layers whose inputs and outputs grow, whose outputs alone grow, and with activation products A."""
    full, outputs = (derivation.solution.subs(t.e, degree) for degree in (2, 1))
    if derivation.unknown != t.k:
        return full, outputs, full
    equation = derivation.cost.subs(t.e, 2) + t.k * t.A - t.m * t.n - t.A
    return full, outputs, positive_root(equation, t.k, f"family {derivation.definition.name!r} with products")


def _compile(arguments: tuple[Expr, ...], body: Expr) -> Any:
    return sympy.lambdify(arguments, body, modules=[_EXACT, "math"], printer=_Exact(_PLAIN_NAMES))


class _Exact(PythonCodePrinter):  # type: ignore[misc]
    """Python code in which 1/2 is a Fraction, not a float."""

    def _print_Rational(self, expr: Expr) -> str:  # noqa: N802  (SymPy's name)
        return f"Fraction({expr.p}, {expr.q})"


_EXACT = {"Fraction": Fraction}
_PLAIN_NAMES = {"fully_qualified_modules": False}  # sqrt, not math.sqrt


def _texts(unknown: Expr, solution: Expr) -> tuple[str, str]:
    """Text and LaTeX of a solution, in s rather than d where that is shorter."""
    shown = min(solution, sympy.factor(solution.subs(t.d, 1 - t.s)), key=lambda form: len(text(form)))
    return f"{unknown} = {text(shown)}", f"{unknown} = {sympy.latex(shown)}"


def _search_space(derivation: Derivation) -> Expr:
    return derivation.masked.subs(derivation.unknown, derivation.solution)


_KNOWN = (t.m, t.n, t.d, t.k, t.A)


def _structure(derivation: Derivation) -> tuple[Expr, ...]:
    k = sympy.Symbol("_k") if derivation.unknown == t.k else t.k
    return t.m, t.n, derivation.unknown, t.e, k


_HEADER = '''"""The built-in families' closed forms, as SymPy solved them. Generated: `python -m iftplan.families.derivation`.

A test generates this file again and compares, so that formula and code cannot disagree.
"""

# fmt: off
# ruff: noqa: E741, ARG005, N803, RUF100
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from iftplan.families.family import Form, Root
from iftplan.families.symbolic.factored import sqrt

FORMS: Mapping[str, Form] = MappingProxyType(
    {
'''

_ENTRY = """        "{name}": Form(
            cost="{cost}",
            maskable="{maskable}",
            full={full},
            outputs={outputs},
            products={products},
            masked=lambda {masked},
            fixed=lambda {fixed},
            covers={covers},
        ),
"""


def generate() -> str:
    """The source text of `iftplan/families/closed_forms.py`."""
    return _HEADER + "".join(_entry(derive(definition)) for definition in DEFINITIONS) + "    }\n)\n"


def _entry(derivation: Derivation) -> str:
    full, outputs, products = (_root_source(derivation.unknown, root) for root in roots(derivation))
    return _ENTRY.format(
        name=derivation.definition.name,
        cost=text(derivation.cost),
        maskable=text(_search_space(derivation)),
        full=full,
        outputs=outputs,
        products=products,
        masked=_function_source(_structure(derivation), derivation.masked),
        fixed=_function_source(_structure(derivation), derivation.fixed),
        covers=derivation.covers,
    )


def _root_source(unknown: Expr, root: Expr) -> str:
    plain, latex = _texts(unknown, root)
    return f'Root("{plain}", r"{latex}", lambda {_function_source(_KNOWN, root)})'


def _function_source(arguments: tuple[Expr, ...], body: Expr) -> str:
    return f"{', '.join(map(str, arguments))}: {_Exact(_PLAIN_NAMES).doprint(body)}"


if __name__ == "__main__":
    print(generate(), end="")  # noqa: T201  (this module's output is a module)
