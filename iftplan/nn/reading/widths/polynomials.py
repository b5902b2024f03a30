"""Solved sizes as people and planners use them: named widths, and polynomials in them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import gcd, isclose

import sympy

from iftplan.models.polynomial import Polynomial, Term
from iftplan.models.spec import Couplings, Width
from iftplan.nn.reading.symbolic.counting import SymbolicCounter
from iftplan.nn.reading.symbolic.held_modules import StuckError
from iftplan.nn.reading.symbolic.model import SymbolicModel
from iftplan.nn.reading.widths.equations import OUTPUT, WidthEquations


class _Names:
    """Symbols as people see them: `c1` counts the channels of some parameter's dimension."""

    def __init__(self, system: WidthEquations, made: SymbolicModel, readers: set[str]) -> None:
        self.system = system
        self.readers = readers
        self.widths: dict[str, Width] = {}
        self.ends: set[str] = set()  # names of widths that an input or an output of the model fixes
        self._free: dict[sympy.Symbol, Polynomial] = {}
        self._fixed: dict[tuple[int, str], str] = {}
        coefficients = _coefficients(system, made)
        for symbol, found in coefficients.items():
            scale = gcd(*found)
            name = self._add(Width(scale * system.dense[symbol], multiple_of=scale))
            self._free[symbol] = Polynomial((Term(Fraction(1, scale), ((name, 1),)),))

    def _add(self, width: Width) -> str:
        name = f"c{len(self.widths) + 1}"
        self.widths[name] = width
        return name

    def polynomial(self, e: sympy.Expr) -> Polynomial:
        """The expression in named symbols."""
        total = Polynomial()
        for term in sympy.Add.make_args(self.system.simplify(e)):
            coefficient, rest = term.as_coeff_Mul()
            product = Polynomial.constant(Fraction(int(coefficient.p), int(coefficient.q)))
            for base, power in rest.as_powers_dict().items():
                for _ in range(int(power) if base != 1 else 0):
                    product = product * self._free[base]
            total = total + product
        return total

    def dimension(self, e: sympy.Expr) -> Polynomial:
        """A parameter's dimension; one that was pinned has a fixed symbol with its reason."""
        if e.is_Symbol and self.system.simplify(e).is_Number:
            size = self.system.dense[e]
            reason = self.system.reason(e)
            key = (size, self._plain(size, reason))
            if key not in self._fixed:
                self._fixed[key] = self._add(Width(key[0], fixed=key[1]))
                if reason == OUTPUT or self._reads_input(reason):
                    self.ends.add(self._fixed[key])
            return Polynomial.symbol(self._fixed[key])
        return self.polynomial(e)

    def _reads_input(self, reason: str) -> bool:
        """Whether a reason is a place in a module that reads the model's input."""
        module, at, _ = reason.partition(" at ")
        return bool(at) and module in self.readers

    def _plain(self, size: int, reason: str) -> str:
        """A reason as a sentence: where it is only a place, say what that place asks for."""
        if self._reads_input(reason):
            return f"an input of the model ({reason})"
        return f"it has to be {size} in {reason}" if ":" in reason else reason


def _coefficients(system: WidthEquations, made: SymbolicModel) -> dict[sympy.Symbol, list[int]]:
    """Free symbol → its multiples that are the dimensions of parameters."""
    found: dict[sympy.Symbol, list[int]] = {}
    inner: dict[sympy.Symbol, list[int]] = {}
    for shape in made.shapes.values():
        for dimension in shape:
            e = system.simplify(dimension)
            for symbol in sorted(e.free_symbols, key=str):
                found.setdefault(symbol, [])
            if len(e.free_symbols) == 1 and (coefficient := e.coeff(symbol)) and e == coefficient * symbol:
                into = inner if dimension in made.group_inputs else found
                into.setdefault(symbol, []).append(int(coefficient))
    return {s: c or inner.get(s) or [1] for s, c in found.items()}


def couplings(
    system: WidthEquations, made: SymbolicModel, counter: SymbolicCounter
) -> tuple[Couplings, frozenset[str]]:
    """Shapes, attributes and MACs as polynomials, checked at the dense sizes.

    Args:
        system: the solved equations between widths.
        made: the model's sizes as symbols.
        counter: contractions of the pass with those sizes.

    Returns:
        The couplings, and the names of the widths that an input or an output of the model fixes.

    Raises:
        StuckError: a shape or a cost that the polynomials do not reproduce.
    """
    names = _Names(system, made, counter.readers)
    shapes = {n: tuple(map(names.dimension, shape)) for n, shape in made.shapes.items()}
    attributes = {n: names.polynomial(e) for n, e in made.attributes.items()}
    weights: dict[str, sympy.Expr] = {}
    products: dict[str, sympy.Expr] = {}
    for call in counter.calls:
        table, key = (weights, call.weight) if call.weight else (products, f"{call.module}:{call.operator}")
        table[key] = table.get(key, sympy.Integer(0)) + call.macs
    result = Couplings(
        names.widths,
        shapes,
        {n: p for n, p in attributes.items() if p.symbols},
        {n: names.polynomial(e) for n, e in weights.items()},
        {n: names.polynomial(e) for n, e in products.items()},
        {n: names.polynomial(e) for n, e in _scales(system, counter).items()},
    )
    _check_dense(result, system, made, {**weights, **products})
    return result, frozenset(names.ends)


def _scales(system: WidthEquations, counter: SymbolicCounter) -> dict[str, sympy.Expr]:
    """Float attributes that scale attention scores: in a module with a product over heads of size d, `d^-½`.

    A size that cannot change is as good an answer, unless one that can gives the same number.
    """
    found: dict[str, sympy.Expr] = {}
    for name, (module, value) in counter.scales.items():
        for call in counter.calls:
            if call.module != module or call.weight is not None:
                continue
            for size in map(system.simplify, call.head_sizes):
                fits = isclose(system.at_dense(size) ** -0.5, value, rel_tol=1e-12)  # 1/√d is off by a bit
                if fits and (size.free_symbols or name not in found):
                    found[name] = size
    return found


def _check_dense(
    result: Couplings, system: WidthEquations, made: SymbolicModel, macs: Mapping[str, sympy.Expr]
) -> None:
    """At the dense sizes every polynomial must give what the dense model has."""
    dense = {name: width.size for name, width in result.widths.items()}
    for name, shape in made.shapes.items():
        expected = tuple(map(system.at_dense, shape))
        if tuple(p.at(dense) for p in result.shapes[name]) != expected:
            raise StuckError(name.rpartition(".")[0], f"the shape of {name} is no polynomial in the widths")
    for name, e in macs.items():
        p = result.weight_macs.get(name) or result.product_macs[name]
        if p.at(dense) != system.at_dense(e):
            module = name.rpartition("." if name in result.weight_macs else ":")[0]
            raise StuckError(module, f"the MACs of {name} are no polynomial in the widths")
