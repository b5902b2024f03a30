"""Sizes as exact expressions: what torch writes with floats, in whole numbers where that is what it means."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import sympy

from iftplan.nn.torch_internals.symbolic import (
    CeilToInt,
    CleanDiv,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Mod,
    PowByNatural,
    PythonMod,
    ToFloat,
    TruncToInt,
)

QUOTIENTS: Final = (FloorDiv, CleanDiv, IntTrueDiv)
REMAINDERS: Final = (Mod, PythonMod, sympy.Mod)

_DOWN: Final = (FloorToInt, TruncToInt, sympy.floor)
_UP: Final = (CeilToInt, sympy.ceiling)


def without_floats(expression: sympy.Expr) -> sympy.Expr:
    """The expression without floats: `int(0.5 * size)` is `size // 2`."""
    if not _inexact(expression):
        return expression
    arguments = [without_floats(argument) for argument in expression.args]
    if isinstance(expression, sympy.Float):
        fraction = Fraction(float(expression))
        return sympy.Rational(fraction.numerator, fraction.denominator)
    if isinstance(expression, ToFloat):
        return arguments[0]
    if isinstance(expression, FloatTrueDiv):
        return _over(arguments[0], arguments[1])
    if isinstance(expression, PowByNatural):
        return arguments[0] ** arguments[1]
    if isinstance(expression, _DOWN + _UP):
        return _whole(expression, arguments[0])
    return expression.func(*arguments)


def _inexact(expression: sympy.Basic) -> bool:
    kinds = (ToFloat, FloatTrueDiv, PowByNatural)
    return bool(expression.atoms(sympy.Float) or expression.atoms(*kinds, *_DOWN, *_UP))


def _over(dividend: sympy.Expr, divisor: sympy.Expr) -> sympy.Expr:
    return dividend / divisor if divisor.is_Number else IntTrueDiv(dividend, divisor)


def _whole(rounding: sympy.Expr, inner: sympy.Expr) -> sympy.Expr:
    """A rounded ratio as a quotient of whole numbers, sizes being positive; otherwise as it was."""
    if opaque(inner) is not None or inner.atoms(*QUOTIENTS):
        return rounding.func(inner)
    dividend, divisor = sympy.fraction(sympy.together(inner))
    if not divisor.is_Integer:
        return rounding.func(inner)
    if isinstance(rounding, _UP):
        dividend = dividend + divisor - 1
    return FloorDiv(dividend, divisor)


def opaque(expression: sympy.Expr) -> sympy.Expr | None:
    """A part whose value no polynomial or quotient gives: a root, a logarithm, a comparison, a maximum."""
    if expression.is_Atom:
        return None
    for part in sympy.preorder_traversal(expression):
        if not part.free_symbols or isinstance(part, QUOTIENTS + REMAINDERS):
            continue
        power = isinstance(part, sympy.Pow) and not (part.exp.is_Integer and part.exp > 0)
        if power or not isinstance(part, sympy.Symbol | sympy.Add | sympy.Mul | sympy.Pow):
            return part
    return None
