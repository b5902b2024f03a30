"""Products of powers with exact coefficients: what the closed forms of built-in families are made of.

Of algebra this knows as much as the generated code of `iftplan.families.closed_forms` does with its arguments: that code runs
on these values as it does on numbers, and gives formulas. A sum is a factor like any other, made primitive, so
that it cancels where it stands on both sides of a fraction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import overload

Number = int | Fraction


@dataclass(frozen=True)
class Factored:
    """The product `coefficient · sqrt(root) · Π factor**power`.

    Attributes:
        coefficient: exact, with its sign; 0 for zero, which has no factors.
        root: a whole number without square divisors.
        powers: of symbols, by name, then of sums.

    Example:
        >>> m, n = symbol("C_in") * 9, symbol("C_out")
        >>> m * n / (m + n) * (m + n) == 9 * symbol("C_in") * symbol("C_out")
        True
    """

    coefficient: Fraction
    root: int = 1
    powers: tuple[tuple[str | SumFactor, Fraction], ...] = ()

    @property
    def symbols(self) -> tuple[tuple[str, Fraction], ...]:
        """The powers of symbols alone."""
        return tuple((factor, power) for factor, power in self.powers if isinstance(factor, str))

    def __mul__(self, other: Factored | Number) -> Factored:
        other = factored(other)
        common = math.gcd(self.root, other.root)
        powers = dict(self.powers)
        for factor, power in other.powers:
            powers[factor] = powers.get(factor, Fraction(0)) + power
        root = self.root * other.root // common**2
        return _product(self.coefficient * other.coefficient * common, root, powers)

    def __pow__(self, power: Number) -> Factored:
        if power != int(power):
            raise OverflowError("a power that is neither whole nor a square root")
        power = int(power)
        whole, odd = divmod(power, 2)
        coefficient = self.coefficient**power * Fraction(self.root) ** whole
        powers = {factor: old * power for factor, old in self.powers}
        return _product(coefficient, self.root if odd else 1, powers)

    def __add__(self, other: Factored | Number) -> Factored:
        return _sum((self, factored(other)))

    def __truediv__(self, other: Factored | Number) -> Factored:
        return self * factored(other) ** -1

    def __rtruediv__(self, other: Number) -> Factored:
        return self**-1 * other

    def __neg__(self) -> Factored:
        return self * -1

    def __sub__(self, other: Factored | Number) -> Factored:
        return self + -factored(other)

    __rmul__ = __mul__
    __radd__ = __add__


@dataclass(frozen=True)
class SumFactor:
    """A primitive sum: its coefficients are whole and share no divisor, its terms no symbol, and the first is positive.

    Attributes:
        terms: in the order in which people write them: by powers of symbols, the alphabet's first symbol first.
    """

    terms: tuple[Factored, ...]


def symbol(name: str) -> Factored:
    """The value that is one symbol."""
    return Factored(Fraction(1), 1, ((name, Fraction(1)),))


def factored(value: Factored | Number) -> Factored:
    """A number as a value of this kind."""
    return value if isinstance(value, Factored) else Factored(Fraction(value))


@overload
def sqrt(value: Factored) -> Factored: ...


@overload
def sqrt(value: float | Fraction) -> float: ...


def sqrt(value: Factored | float | Fraction) -> Factored | float:
    """The positive root of a positive value: exact of a factored one, a float of a number.

    Raises:
        OverflowError: the coefficient has more digits than squares are looked for in.
    """
    if not isinstance(value, Factored):
        return math.sqrt(value)
    if value.root != 1:
        raise OverflowError("the root of a root")
    (a, s), (b, t) = map(_square_divisor, value.coefficient.as_integer_ratio())
    powers = {factor: power / 2 for factor, power in value.powers}
    return _product(Fraction(a, b * t), s * t, powers)  # sqrt(a²·s/(b²·t)) = a·sqrt(s·t)/(b·t)


_MOST = 2**30
"""Numbers up to here have no square divisor that is prime and above 2**15, which is how far SymPy looks."""


def _square_divisor(number: int) -> tuple[int, int]:
    """The (a, s) of number = a²·s with s free of squares."""
    if number > _MOST:
        raise OverflowError(f"{number} is larger than {_MOST}")
    outside, free, rest, divisor = 1, 1, number, 2
    while divisor**3 <= rest:
        while rest % divisor**2 == 0:
            rest //= divisor**2
            outside *= divisor
        if rest % divisor == 0:
            rest //= divisor
            free *= divisor
        divisor += 1
    side = math.isqrt(rest)  # what is left has two primes at most
    return (outside * side, free) if side**2 == rest else (outside, free * rest)


def _product(coefficient: Fraction, root: int, powers: dict[str | SumFactor, Fraction]) -> Factored:
    if not coefficient:
        return Factored(Fraction(0))
    present = [(factor, power) for factor, power in powers.items() if power]
    present.sort(key=lambda pair: (isinstance(pair[0], SumFactor), str(pair[0])))
    return Factored(coefficient, root, tuple(present))


def _sum(values: Iterable[Factored]) -> Factored:
    """Like terms together, and what all terms share before them."""
    like: dict[tuple[int, tuple[tuple[str | SumFactor, Fraction], ...]], Fraction] = {}
    for value in values:
        for term in _terms(value):
            key = (term.root, term.powers)
            like[key] = like.get(key, Fraction(0)) + term.coefficient
    terms = [Factored(coefficient, *key) for key, coefficient in like.items() if coefficient]
    if len(terms) < 2:
        return terms[0] if terms else Factored(Fraction(0))
    names = sorted({name for term in terms for name, _ in term.symbols})

    def place(term: Factored) -> tuple[list[Fraction], bool, float]:
        powers = dict(term.symbols)
        degrees = [-powers.get(name, Fraction(0)) for name in names]
        return degrees, len(powers) < len(term.powers), float(term.coefficient)

    terms.sort(key=place)
    shared = _shared(terms)
    return shared * Factored(
        Fraction(1), 1, ((SumFactor(tuple(term / shared for term in terms)), Fraction(1)),)
    )


def _terms(value: Factored) -> Iterable[Factored]:
    """What a value adds up, where it is a sum times something."""
    for factor, power in value.powers:
        if isinstance(factor, SumFactor) and power == 1:
            before = value / Factored(Fraction(1), 1, ((factor, power),))
            return [before * term for term in factor.terms]
    return [value]


def _shared(terms: list[Factored]) -> Factored:
    """Coefficient, with the first term's sign, and symbols that all terms have."""
    above = math.gcd(*(term.coefficient.numerator for term in terms))
    below = math.lcm(*(term.coefficient.denominator for term in terms))
    sign = 1 if terms[0].coefficient > 0 else -1
    powers = [dict(term.powers) for term in terms]
    least = {
        factor: min(of.get(factor, Fraction(0)) for of in powers)
        for factor in {f for of in powers for f in of}
    }
    return _product(Fraction(sign * above, below), 1, least)
