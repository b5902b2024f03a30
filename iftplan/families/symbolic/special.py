"""The closed form of a built-in family for one kind of layer at one density, in the layer's own channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from iftplan.families.family import Family
from iftplan.families.layer_costs import layer_cost
from iftplan.families.symbolic.factored import Factored, SumFactor, factored, sqrt, symbol
from iftplan.families.symbolic.writing import latex, text
from iftplan.models.spec import LayerSpec

_SYMBOLS = SimpleNamespace(**{name: symbol(name) for name in ("C_in", "C_out", "D_in", "D_out", "T")})


@dataclass(frozen=True)
class Special:
    """A closed form with the kernel and the density filled in.

    Attributes:
        text: for instance `r = 36·C_in·C_out/(9·C_in+C_out)`.
        latex: the same in LaTeX.
        search_space: the maskable weights' formula.
        value: the structure where it is a number whatever the channels, else None.
    """

    text: str
    latex: str
    search_space: str
    value: int | float | None


def special_form(layer: LayerSpec, family: Family, density: Fraction) -> Special:
    """A built-in family's solution for this kind of layer at this density, without SymPy.

    The generated code that computes a structure from numbers does so from symbols.

    Args:
        layer: of the kind to solve for; its kernel and groups count, its channels may be symbolic.
        family: one of `iftplan.families.builtin`.
        density: the fraction of weights to keep, in (0, 1].

    Raises:
        OverflowError: the density has more digits than roots are simplified for.

    Example:
        >>> from iftplan.families.builtin import FAMILIES
        >>> from iftplan.models.notation import parse_layer
        >>> special_form(parse_layer("conv3x3"), FAMILIES["factorized"], Fraction(1, 4)).text
        'r = 36·C_in·C_out/(9·C_in+C_out)'
    """
    cost = layer_cost(layer, _SYMBOLS)
    m, n, d = cost.fan_in, cost.fan_out, factored(density)
    products = cost.products / cost.copies
    k = 1 / sqrt(d)
    unknown = family.definition.unknown
    solution: Any = family.form.root(layer).value
    weights: Any = family.form.masked
    structure = factored(solution(m, n, d, k, products))
    if family.definition.widens and not family.solves_width and cost.products:
        structure *= (m * n + products - k * products) / (m * n)  # the products of a wider layer cost more
    masked = factored(cost.copies * weights(m, n, structure, cost.degree, k))
    shown = _shortest(structure)
    return Special(
        f"{unknown} = {text(shown)}",
        f"{unknown} = {latex(shown)}",
        text(masked),
        _number(structure),
    )


def _number(value: Factored) -> int | float | None:
    """The value as a number, None where it has symbols.

    A root is rounded as SymPy rounds it, which may be one unit off in the last place, so that documents stay what they were.
    """
    if value.powers:
        return None
    if value.root == 1:
        return int(value.coefficient) if value.coefficient.denominator == 1 else float(value.coefficient)
    root = Fraction(math.isqrt(value.root << 256), 1 << 128)
    if value.coefficient == 1:
        return float(_first_bits(root, 57))
    return float(_first_bits(_first_bits(value.coefficient, 64) * _first_bits(root, 64), 57, round))


def _first_bits(value: Fraction, bits: int, whole: Callable[[Fraction], int] = math.floor) -> Fraction:
    above, below = value.as_integer_ratio()
    exponent = above.bit_length() - below.bit_length()
    scale = Fraction(2) ** (bits - exponent - (value >= Fraction(2) ** exponent))
    return whole(value * scale) / scale


def _shortest(value: Factored) -> Factored:
    """The root before a sum multiplied into it, where SymPy counts fewer operations then.

    It does where that makes the first term's coefficient 1 over a number, if none in the sum is 1 as it stands.
    """
    for factor, power in value.powers:
        if isinstance(factor, SumFactor) and power == 1 and value.root != 1:
            first = value.coefficient * factor.terms[0].coefficient
            if first.numerator == 1 and all(abs(term.coefficient) != 1 for term in factor.terms):
                root = Factored(Fraction(1), value.root)
                before = value / root / Factored(Fraction(1), 1, ((factor, power),))
                return before * sum((root * term for term in factor.terms), factored(0))
    return value
