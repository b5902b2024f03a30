"""How factored values are written, as text and as LaTeX, in the order in which SymPy writes its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from iftplan.families.symbolic.factored import Factored, SumFactor

Powers = Sequence[tuple[str | SumFactor, Fraction]]


@dataclass(frozen=True)
class Style:
    """Way of writing a formula: what text and LaTeX do differently.

    Attributes:
        times: between factors.
        space: around the signs of terms.
        symbol: symbol by name.
        root: square root of what is written.
        power: written base to a written exponent.
        group: parentheses around what is written.
        fraction: factors over factors.
        bare: whether a sum that is alone above or below a line goes without parentheses.
    """

    times: str
    space: str
    symbol: Callable[[str], str]
    root: Callable[[str], str]
    power: Callable[[str, Fraction], str]
    group: Callable[[str], str]
    fraction: Callable[[list[str], list[str]], str]
    bare: bool


def _index(name: str) -> str:
    letter, _, index = name.partition("_")
    return f"{letter}_{{{index}}}" if index else letter


_TEXT = Style(
    times="·",
    space="",
    symbol=str,
    root="sqrt({})".format,
    power="{}^{}".format,
    group="({})".format,
    fraction=lambda above, below: (
        "·".join(above) + ("/{}" if len(below) == 1 else "/({})").format("·".join(below))
    ),
    bare=False,
)
_LATEX = Style(
    times=" ",
    space=" ",
    symbol=_index,
    root=r"\sqrt{{{}}}".format,
    power="{}^{{{}}}".format,
    group=r"\left({}\right)".format,
    fraction=lambda above, below: rf"\frac{{{' '.join(above)}}}{{{' '.join(below)}}}",
    bare=True,
)


def text(value: Factored) -> str:
    """A value in one line.

    Example:
        >>> from iftplan.families.symbolic.factored import symbol
        >>> text(symbol("m") * symbol("n") / (2 * (symbol("m") + symbol("n"))))
        'm·n/(2·(m+n))'
    """
    return _signed(value, _TEXT)


def latex(value: Factored) -> str:
    """A value in LaTeX."""
    return _signed(value, _LATEX)


def _signed(value: Factored, style: Style) -> str:
    return f"-{style.space}{_unsigned(value, style)}" if value.coefficient < 0 else _unsigned(value, style)


def _unsigned(value: Factored, style: Style) -> str:
    size = abs(value.coefficient)
    above = _side(size.numerator, value.root, [(f, p) for f, p in value.powers if p > 0], style)
    below = _side(size.denominator, 1, [(f, -p) for f, p in value.powers if p < 0], style)
    return style.times.join(above) if below == ["1"] else style.fraction(above, below)


def _side(number: int, root: int, powers: Powers, style: Style) -> list[str]:
    """Written factors above or below a line."""
    numbers = [*([str(number)] if number != 1 else []), *([style.root(str(root))] if root != 1 else [])]
    alone = style.bare and not numbers and len(powers) == 1
    return [*numbers, *(_factor(f, p, alone, style) for f, p in powers)] or ["1"]


def _factor(factor: str | SumFactor, power: Fraction, alone: bool, style: Style) -> str:
    inside = style.symbol(factor) if isinstance(factor, str) else _added(factor, style)
    if power == Fraction(1, 2):
        return style.root(inside)
    if isinstance(factor, SumFactor) and not (alone and power == 1):
        inside = style.group(inside)
    return inside if power == 1 else style.power(inside, power)


def _added(sum_: SumFactor, style: Style) -> str:
    first, *rest = sum_.terms
    signs = (f"{style.space}{'-' if term.coefficient < 0 else '+'}{style.space}" for term in rest)
    return _signed(first, style) + "".join(
        sign + _unsigned(term, style) for sign, term in zip(signs, rest, strict=True)
    )
