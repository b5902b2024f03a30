"""Costs as polynomials in the widths, where data decide how often a layer computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Final

from iftplan.base.errors import InfeasibleError
from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings
from iftplan.nn.reading.widths.check import Counts

_ONE: Final = Polynomial.constant(1)


def counted_on_data(couplings: Couplings, counted: Counts) -> Couplings:
    """The couplings with the costs that were counted for the input given.

    A symbolic pass has no data: what they decide, such as how many boxes a detector looks into, was assumed.
    A cost is that number times a monomial in the widths, so one count at the dense widths gives the number.

    Args:
        couplings: of a pass that assumed what data decide.
        counted: what was counted on data, at the dense widths.

    Raises:
        InfeasibleError: a cost is no such product, or the symbolic pass did not meet a layer at all.
    """
    dense = {name: width.size for name, width in couplings.widths.items()}
    of_weight = {name: prod(shape, start=_ONE) for name, shape in couplings.shapes.items()}
    return replace(
        couplings,
        weight_macs={
            name: _scaled(name, couplings.weight_macs, counted.weights, dense, of_weight.get(name))
            for name in couplings.weight_macs.keys() | counted.weights.keys()
        },
        product_macs={
            name: _scaled(name, couplings.product_macs, counted.products, dense)
            for name in couplings.product_macs.keys() | counted.products.keys()
        },
    )


def _scaled(
    name: str,
    assumed: Mapping[str, Polynomial],
    counted: Mapping[str, int],
    dense: Mapping[str, int],
    once: Polynomial | None = None,
) -> Polynomial:
    """What was counted, as a polynomial; `once` is the cost of one row of a weight."""
    polynomial, macs = assumed.get(name, Polynomial()), counted.get(name, 0)
    before = polynomial.at(dense)
    if before == macs:
        return polynomial
    by_rows = once is not None and polynomial == once * _constant(before, once.at(dense))
    if before and (by_rows or len(polynomial.terms) == 1):
        return polynomial * _constant(macs, before)
    module, product, operator = name.rpartition(":")
    what = f"{operator} of {module or 'the model'}" if product else name
    raise InfeasibleError(f"data decide what {what} costs, and how that follows the widths is not known")


def _constant(numerator: int, denominator: int) -> Polynomial:
    return Polynomial.constant(Fraction(numerator, denominator))
