"""Exact polynomials in a model's widths: what a symbolic shape trace hands to the planner.

A plain value without SymPy, so that planning a thousand width settings costs a thousand dictionary
walks and a polynomial can be written to a document as data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

STRICT: dict[str, Any] = {"extra": "forbid"}
"""How documents are read into these values: an unknown key is refused."""


@dataclass(frozen=True, slots=True)
class Term:
    """Term `coefficient · Π symbol**power` of a polynomial.

    Attributes:
        coefficient: exact.
        powers: (symbol, power), sorted by symbol; powers are positive.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    coefficient: Fraction
    powers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Polynomial in widths: a sum of terms with distinct monomials, sorted.

    Attributes:
        terms: none for zero.

    Example:
        >>> area = Polynomial.symbol("c1") * Polynomial.symbol("c2") * Polynomial.constant(9)
        >>> area.at({"c1": 64, "c2": 128})
        73728
        >>> print(area)
        9·c1·c2
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    terms: tuple[Term, ...] = ()

    @staticmethod
    def constant(value: int | Fraction) -> Polynomial:
        """Polynomial without symbols, of one number."""
        return Polynomial.of([Term(Fraction(value))])

    @staticmethod
    def symbol(name: str) -> Polynomial:
        """The polynomial that is one symbol."""
        return Polynomial((Term(Fraction(1), ((name, 1),)),))

    @staticmethod
    def of(terms: Iterable[Term]) -> Polynomial:
        """Collect equal monomials and drop those that vanish."""
        sums: dict[tuple[tuple[str, int], ...], Fraction] = {}
        for term in terms:
            sums[term.powers] = sums.get(term.powers, Fraction(0)) + term.coefficient
        return Polynomial(tuple(Term(c, powers) for powers, c in sorted(sums.items()) if c))

    def __add__(self, other: Polynomial) -> Polynomial:
        return Polynomial.of((*self.terms, *other.terms))

    def __mul__(self, other: Polynomial) -> Polynomial:
        return Polynomial.of(_times(a, b) for a in self.terms for b in other.terms)

    def at(self, sizes: Mapping[str, int]) -> int:
        """Exact integer value at these sizes.

        Raises:
            ValueError: the value is no whole number.
            KeyError: a symbol has no size.
        """
        value: int | Fraction = 0
        for term in self.terms:
            product = prod([sizes[name] ** power for name, power in term.powers])
            whole = term.coefficient.denominator == 1  # fractions are rare, and ten times as slow
            value += (term.coefficient.numerator if whole else term.coefficient) * product
        if value.denominator != 1:
            raise ValueError(f"{self} is {value} at these sizes, not a whole number")
        return int(value)

    @property
    def symbols(self) -> frozenset[str]:
        """Names of the symbols that the polynomial depends on."""
        return frozenset(name for term in self.terms for name, _ in term.powers)

    def __str__(self) -> str:
        return " + ".join(map(_term_text, self.terms)) or "0"


def _times(a: Term, b: Term) -> Term:
    powers = dict(a.powers)
    for name, power in b.powers:
        powers[name] = powers.get(name, 0) + power
    return Term(a.coefficient * b.coefficient, tuple(sorted(powers.items())))


def _term_text(term: Term) -> str:
    factors = [name if power == 1 else f"{name}^{power}" for name, power in term.powers]
    if term.coefficient != 1 or not factors:
        factors.insert(0, str(term.coefficient))
    return "·".join(factors)
