"""Solves the equations between a model's sizes, so that every size is a polynomial in few free ones.

The equations come from one forward pass (`symbolic`). All hold at the dense sizes; what is looked
for is a family of sizes that keeps them all true. Restricting the family is sound: a quotient that is
whole in the dense model stays whole (`C // 2` becomes `c` with `C = 2·c`), and a size that cannot be
followed keeps its value, with the source line as its reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Final

import sympy

from iftplan.nn.reading.symbolic.held_modules import StuckError
from iftplan.nn.reading.symbolic.shapes import Equation
from iftplan.nn.reading.widths.exact_sizes import QUOTIENTS, REMAINDERS, opaque, without_floats
from iftplan.nn.torch_internals.symbolic import FloorDiv

# Sizes grow in proportion where the largest is no larger a multiple of their common unit.
_COARSEST = 16


OUTPUT: Final = "an output of the model"
"""What pins the sizes of a model's answer."""


@dataclass
class WidthEquations:
    """Sizes under equations; `add` takes one more equation into account.

    Attributes:
        dense: symbol → its size in the dense model; grows with the quotients.
        values: symbol → what it has been found to be.
        reasons: symbol → why it has the constant value that it has.
        quotients: symbols made for quotients: no dimension's own.
    """

    dense: dict[sympy.Symbol, int]
    values: dict[sympy.Symbol, sympy.Expr] = field(default_factory=dict)
    reasons: dict[sympy.Symbol, str] = field(default_factory=dict)
    quotients: set[sympy.Symbol] = field(default_factory=set)
    _waiting: deque[Equation] = field(default_factory=deque)
    _postponed: list[Equation] = field(default_factory=list)
    _memo: dict[sympy.Expr, sympy.Expr] = field(default_factory=dict)

    def add(self, equations: Iterable[Equation]) -> None:
        """Solve the equations together with all that is known; what nothing solves yet waits."""
        self._waiting.extend(equations)
        progress = True
        while self._waiting:
            equation = self._waiting.popleft()
            if self._solve(equation):
                progress = True
            else:
                self._postponed.append(equation)
            if not self._waiting and progress:
                progress = False
                self._waiting, self._postponed = deque(self._postponed), []

    def pin(self, symbol: sympy.Symbol, reason: str) -> None:
        """Let a free symbol keep its dense size."""
        self.add([Equation(symbol, sympy.Integer(self.dense[symbol]), reason)])

    def split_off(self, difference: sympy.Expr) -> bool:
        """Keep what is left of a size from vanishing; whether that can be without pinning anything.

        In `c - a`, what is left becomes a size of its own, `c = a + r`; in `3·c - a - b`, all grow in proportion.
        """
        terms = [_split(term) for term in sympy.Add.make_args(difference)]
        whole = [(c, m) for c, m in terms if c > 0 and m]
        taken = [m for c, m in terms if c < 0 and m]
        if len(whole) == 1 and whole[0][0] == 1 and list(whole[0][1].values()) == [1]:
            (size,) = whole[0][1]
            if not any(size in m for m in taken):
                left = self._new(self.at_dense(difference))
                self._assign(size, left + size - difference, "what is left of a size")
                self.add([])
                return True
        symbols = sorted(difference.free_symbols, key=str)
        unit = gcd(*(self.dense[s] for s in symbols))
        linear = all(m and list(m.values()) == [1] for _, m in terms)
        if not linear or max(self.dense[s] for s in symbols) > _COARSEST * unit:
            return False
        common = self._new(unit)
        for symbol in symbols:
            self._assign(symbol, self.dense[symbol] // unit * common, "what is left of a size")
        self.add([])
        return True

    def finish(self) -> None:
        """Pin a size in every equation that nothing solves."""
        while self._postponed:
            self._force(self._postponed.pop(0))
            self.add(self._postponed_now())

    @property
    def waiting(self) -> bool:
        """Whether some equation is still unsolved."""
        return bool(self._postponed)

    def reason(self, symbol: sympy.Symbol) -> str:
        """Reason for the constant value of a symbol; empty if none is known."""
        reason = self.reasons.get(symbol, "")
        value = self.values.get(symbol)
        inner = sorted(value.free_symbols, key=str) if value is not None else []
        return self.reason(inner[0]) if inner else reason

    def _postponed_now(self) -> list[Equation]:
        waiting, self._postponed = self._postponed, []
        return waiting

    def simplify(self, expression: sympy.Expr) -> sympy.Expr:
        """The expression in free symbols, without quotients and remainders."""
        found = self._resolve(expression)
        while self._reduced(found, "a whole quotient"):
            found = self._resolve(found)
        return sympy.expand(found)

    def _reduced(self, expression: sympy.Expr, where: str) -> bool:
        """Give a value to the innermost of what is no polynomial in the expression, if there is any."""
        if (unknown := opaque(expression)) is not None:
            self._freeze(unknown, where)
        elif (atom := _innermost(expression)) is not None:
            self._replace_atom(atom, where)
        else:
            return False
        return True

    def _resolve(self, expression: sympy.Expr) -> sympy.Expr:
        expression = without_floats(expression)
        while known := {s: self.values[s] for s in expression.free_symbols if s in self.values}:
            expression = expression.xreplace(known)
        if self._memo:
            expression = _replace_atoms(expression, self._memo)
        return expression

    def at_dense(self, expression: sympy.Expr) -> int:
        """The expression's value in the dense model."""
        return int(expression.xreplace({s: sympy.Integer(self.dense[s]) for s in expression.free_symbols}))

    def _replace_atom(self, atom: sympy.Expr, where: str) -> None:
        """Give a quotient or remainder a value: a new size, and the equation that makes it whole."""
        # A division that is whole in the dense model is kept whole at all widths: `C // 2` becomes c, with
        # `C = 2·c` as one more equation. That rules out widths which the model might accept (an odd C), and it
        # leaves polynomials, in which costs can be compared exactly. A division with a remainder has no such
        # form, unless it is a ceiling, which divides another number without one.
        p, q = atom.args
        dense_p, dense_q = self.at_dense(p), self.at_dense(q)
        quotient = _whole(p, q)
        if isinstance(atom, REMAINDERS):
            if dense_p % dense_q:
                self._freeze(atom, where)
                return
            self._memo[atom] = sympy.Integer(0)
            self._divide(p, q, dense_p // dense_q, quotient, where)
            return
        if dense_p % dense_q == 0:
            self._memo[atom] = self._divide(p, q, dense_p // dense_q, quotient, where)
            return
        raised = sympy.expand(p - (q - 1))  # ⌈a/q⌉ is written as ⌊(a + q - 1)/q⌋
        if raised.free_symbols and self.at_dense(raised) % dense_q == 0:
            self._memo[atom] = self._divide(
                raised, q, self.at_dense(raised) // dense_q, _whole(raised, q), where
            )
            return
        self._freeze(atom, where)

    def _divide(
        self, p: sympy.Expr, q: sympy.Expr, dense: int, quotient: sympy.Expr | None, where: str
    ) -> sympy.Expr:
        if quotient is not None:
            return quotient
        key = FloorDiv(p, q, evaluate=False)
        if key in self._memo:
            return self._memo[key]
        new = self._new(dense)
        self._memo[key] = new
        self._waiting.append(Equation(p, q * new, where))
        return new

    def _new(self, dense: int) -> sympy.Symbol:
        new = sympy.Symbol(f"q{len(self.quotients)}", integer=True, positive=True)
        self.quotients.add(new)
        self.dense[new] = dense
        return new

    def _freeze(self, atom: sympy.Expr, where: str) -> None:
        """Let the sizes keep their values in what only their values can answer."""
        what = (
            "an uneven division" if isinstance(atom, QUOTIENTS + REMAINDERS) else "a number computed from it"
        )
        for symbol in sorted(atom.free_symbols, key=str):
            self._assign(symbol, sympy.Integer(self.dense[symbol]), f"{where}: {what}")

    def _assign(self, symbol: sympy.Symbol, value: sympy.Expr, reason: str) -> None:
        self.values[symbol] = value
        self.reasons[symbol] = reason
        # Quotients of what changed may now be whole, or need a look again: what was found of them becomes an
        # equation, so that it goes on holding.
        stale = [atom for atom in self._memo if symbol in atom.free_symbols]
        for atom in stale:
            known = self._memo.pop(atom)
            self._waiting.append(Equation(atom.func(*(self._resolve(a) for a in atom.args)), known, reason))

    def _solve(self, equation: Equation) -> bool:
        """Use an equation; False if it has to wait for others."""
        left, right = self._resolve(equation.left), self._resolve(equation.right)
        for side in (left, right):
            if self._reduced(side, equation.where):
                self._waiting.append(equation)
                return True
        difference = sympy.expand(left - right)
        if difference.is_Number:
            if difference != 0:
                raise StuckError.at(equation.where, "its sizes contradict each other at other widths")
            return True
        return self._solve_polynomial(difference, self._cause(equation))

    def _cause(self, equation: Equation) -> str:
        """Where an equation comes from; where it meets a size that something fixed, what fixed that."""
        for symbol in sorted(equation.left.free_symbols | equation.right.free_symbols, key=str):
            if symbol in self.values and (reason := self.reason(symbol)) and self.is_fixed(symbol):
                return reason
        return equation.where

    def is_fixed(self, symbol: sympy.Symbol) -> bool:
        """Whether a symbol has been found to be a number."""
        return not self._resolve(symbol).free_symbols

    def _solve_polynomial(self, difference: sympy.Expr, where: str) -> bool:
        """`Σ terms = 0`, all symbols positive."""
        terms = [_split(term) for term in sympy.Add.make_args(difference)]
        terms = _without_common_factor(terms)
        choice = _solvable(terms)
        if choice is not None:
            symbol, value = choice
            self._assign(symbol, value, where)
            return True
        if len(terms) == 2 and all(len(m) == 1 and list(m.values()) == [1] for _, m in terms):
            self._common_multiple(terms, where)
            return True
        return False

    def _common_multiple(
        self, terms: list[tuple[sympy.Rational, dict[sympy.Symbol, int]]], where: str
    ) -> None:
        """`2·a = 3·b` means `a = 3·t`, `b = 2·t`."""
        (first, a), (second, b) = terms
        (a_symbol,), (b_symbol,) = a, b
        ratio = sympy.Rational(-second, first)
        new = self._new(self.dense[a_symbol] // int(ratio.p))
        self._assign(a_symbol, ratio.p * new, where)
        self._assign(b_symbol, ratio.q * new, where)

    def _force(self, equation: Equation) -> None:
        """An equation that nothing solves keeps one of its sizes."""
        difference = sympy.expand(self._resolve(equation.left) - self._resolve(equation.right))
        # a quotient before a dimension: no weight has its size, so that least is given up with it
        free = sorted(difference.free_symbols, key=lambda s: (s not in self.quotients, str(s)))
        if free:
            symbol = free[0]
            self._assign(symbol, sympy.Integer(self.dense[symbol]), equation.where)
            self._waiting.append(equation)


def shrinks(e: sympy.Expr) -> bool:
    """Whether a size gets smaller where another grows: it could become nothing."""
    terms = [term.as_coeff_Mul() for term in sympy.Add.make_args(e)]
    return any(coefficient < 0 and rest.free_symbols for coefficient, rest in terms)


def _innermost(expression: sympy.Expr) -> sympy.Expr | None:
    """A quotient or remainder that has none inside it."""
    atoms = expression.atoms(*QUOTIENTS, *REMAINDERS)
    return min(atoms, key=lambda a: (sympy.count_ops(a), str(a))) if atoms else None


def _replace_atoms(expression: sympy.Expr, known: Mapping[sympy.Expr, sympy.Expr]) -> sympy.Expr:
    while hits := {a: known[a] for a in expression.atoms(*QUOTIENTS, *REMAINDERS) if a in known}:
        expression = expression.xreplace(hits)
    return expression


def _whole(p: sympy.Expr, q: sympy.Expr) -> sympy.Expr | None:
    """p/q if it is a polynomial with whole coefficients."""
    quotient = sympy.cancel(p / q)
    if sympy.denom(quotient) != 1:
        return None
    coefficients = [c for c, _ in map(_split, sympy.Add.make_args(sympy.expand(quotient)))]
    return quotient if all(c.is_integer for c in coefficients) else None


def _split(term: sympy.Expr) -> tuple[sympy.Rational, dict[sympy.Symbol, int]]:
    """A term's coefficient and monomial."""
    coefficient, rest = term.as_coeff_Mul()
    return coefficient, {s: int(p) for s, p in rest.as_powers_dict().items() if s != 1}


Terms = list[tuple[sympy.Rational, dict[sympy.Symbol, int]]]


def _without_common_factor(terms: Terms) -> Terms:
    common = dict(terms[0][1])
    for _, monomial in terms[1:]:
        common = {s: min(p, monomial[s]) for s, p in common.items() if s in monomial}
    return [(c, {s: p - common.get(s, 0) for s, p in m.items() if p > common.get(s, 0)}) for c, m in terms]


def _solvable(terms: Terms) -> tuple[sympy.Symbol, sympy.Expr] | None:
    """A symbol that occurs once, alone and to the first power, and divides everything else.

    Only equations of degree one, or a product that *is* a size (`C = n·h`), are solved so.
    """
    candidates = []
    for i, (coefficient, monomial) in enumerate(terms):
        if list(monomial.values()) != [1]:
            continue
        (symbol,) = monomial
        others = [t for j, t in enumerate(terms) if j != i]
        if any(symbol in m for _, m in others):
            continue
        ratios = [sympy.Rational(-c, coefficient) for c, _ in others]
        if all(r.is_integer for r in ratios):
            degree = max((sum(m.values()) for _, m in others), default=0)
            # A difference of sizes is not sure to stay positive; prefer the solution that is a sum.
            negative = any(r < 0 for r in ratios)
            if negative and any(not m for _, m in others):
                continue
            candidates.append((negative, degree, str(symbol), symbol, ratios, others))
    if not candidates:
        return None
    # Which symbol is replaced decides which sizes stay free. A sum before a difference; the whole of a product
    # before a factor, so that `C = n·h` leaves the number and the size of heads free; among equals the name
    # decides, so that nothing depends on the order of the equations.
    *_, symbol, ratios, others = max(candidates, key=lambda c: (not c[0], c[1], len(c[2]), c[2]))
    value = sympy.Add(
        *(r * sympy.Mul(*(s**p for s, p in m.items())) for r, (_, m) in zip(ratios, others, strict=True))
    )
    return symbol, value
