"""Widths of a JAX model that its configuration names, found by tracing it at other numbers and checked there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import combinations
from math import prod
from operator import mul
from typing import Final

from iftplan.base.errors import IftplanError
from iftplan.jaxnn.counting.measure import Vouched, counted, summed_products, used_weights
from iftplan.jaxnn.counting.tally import WeightShape
from iftplan.jaxnn.sources.configuration import Configurable
from iftplan.jaxnn.sources.models import traceable
from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings, Heads, Kind, Width

NO_WIDTHS: Final = (
    "no number of its configuration widens it. Give the module, or the factory that returns it, an argument that is a "
    "width, such as def build(width=64)"
)

_COUNTS: Final = re.compile(r"(heads?|groups|experts|layers|depth|blocks)$")
"""Names of numbers that count the parts of a width, or of a model, and are no widths themselves."""

_PARTS: Final = re.compile(r"head_(dim|size)$")
"""Names of numbers that are the size of a head."""


def width_couplings(model: Configurable, vouched: Vouched, heads: Heads) -> tuple[Couplings | None, str]:
    """Couplings of the widths that a configuration names; None, and why, where there are none.

    A number is a width if the model has the same layers, positions and results at its double and triple, with more
    channels. How channels and MACs follow from several widths is checked at sizes that were not used to find it.

    Args:
        model: to be traced.
        vouched: primitive → cost that the user gives.
        heads: what attention keeps when it widens.
    """
    base = _facts(model, {}, vouched)
    if base is None:
        return None, NO_WIDTHS
    kept = _COUNTS if heads == "number" else _PARTS
    widths: dict[str, Width] = {}
    alone: dict[str, tuple[_Facts, _Facts]] = {}
    for name, size in model.sizes.items():
        if size < 2 or kept.search(name):
            continue
        twice, thrice = (_facts(model, {name: size * times}, vouched) for times in (2, 3))
        if twice and thrice and all(base.widens_to(other) for other in (twice, thrice)):
            alone[name] = twice, thrice
            widths[name] = Width(size, _multiple(model, base, name, size, vouched))
    if not widths:
        return None, NO_WIDTHS
    together = {
        pair: found
        for pair in combinations(widths, 2)
        if any(map(mul, base.moved(alone[pair[0]][0]), base.moved(alone[pair[1]][0])))
        and (found := _facts(model, {name: 2 * widths[name].size for name in pair}, vouched))
    }
    couplings = _couplings(base, widths, alone, together, heads)
    if not _holds(model, base, couplings, vouched):
        return None, f"its channels do not follow from {', '.join(widths)} by sums and products of two"
    return couplings, ""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a model is at some sizes.

    Attributes:
        shapes: weight → its dimensions, as `Couplings.shapes` orders them.
        macs: weight → MACs of its products.
        products: product of activations → MACs.
        rest: what a width leaves as it is: kinds of layers, kernels, groups, shapes of inputs and results.
    """

    shapes: Mapping[str, tuple[int, ...]]
    macs: Mapping[str, int]
    products: Mapping[str, int]
    rest: object

    @property
    def numbers(self) -> tuple[int, ...]:
        """Dimensions of all weights, then MACs of all products of activations."""
        return (*(size for shape in self.shapes.values() for size in shape), *self.products.values())

    def widens_to(self, other: _Facts) -> bool:
        """Whether the other is the same model with more channels in some layer, at the same positions."""
        if self.rest != other.rest or self.shapes.keys() != other.shapes.keys():
            return False
        grown = [name for name, macs in self.macs.items() if macs and other.macs[name] > macs]
        return bool(grown) and all(
            macs * prod(other.shapes[name]) == other.macs[name] * prod(self.shapes[name])
            for name, macs in self.macs.items()
        )

    def moved(self, other: _Facts) -> tuple[int, ...]:
        """Difference of each of the numbers."""
        return tuple(b - a for a, b in zip(self.numbers, other.numbers, strict=True))


def _facts(model: Configurable, sizes: Mapping[str, int], vouched: Vouched) -> _Facts | None:
    """What a model is at these sizes; None where it cannot be built or traced."""
    try:
        whole = traceable(*model.made(sizes))
        found = counted(whole, vouched)
    except IftplanError:
        return None
    except Exception:  # a configuration that its own code refuses
        return None
    uses = {weight: use for weight, use in used_weights(found.tally).items() if use.shape}
    sizes_of = {name: tuple(leaf.shape) for name, leaf in whole.weights().items()}
    seen = {weight: use.shape for weight, use in uses.items() if use.shape}
    products = summed_products(found.table)
    rest = (
        {
            w: (shape.kind, shape.kernel, _fixed_groups(shape), _stack(shape, sizes_of[w]))
            for w, shape in seen.items()
        },
        whole.inputs,
        found.outputs,
        products.keys(),
    )
    return _Facts(
        {w: _dimensions(shape, _stack(shape, sizes_of[w])) for w, shape in seen.items()},
        {w: use.macs for w, use in uses.items()},
        products,
        rest,
    )


def _stack(shape: WeightShape, sizes: tuple[int, ...]) -> int:
    """Matrices that a weight holds."""
    each = shape.in_channels // shape.groups * shape.out_channels * prod(shape.kernel)
    return prod(sizes) // each if each and prod(sizes) % each == 0 else 1


def _is_depthwise(shape: WeightShape) -> bool:
    return shape.groups == shape.in_channels > 1


def _fixed_groups(shape: WeightShape) -> int:
    """Groups that stay when a layer widens; 0 where there is one for each channel."""
    return 0 if _is_depthwise(shape) else shape.groups


def _dimensions(shape: WeightShape, stack: int) -> tuple[int, ...]:
    """Dimensions of a layer's weight in torch's order, a stack's number first."""
    inputs, outputs = shape.in_channels, shape.out_channels
    if shape.kind is Kind.EMBEDDING:
        return inputs, outputs
    first = (stack,) if stack > 1 else ()
    if shape.kind.transposed:
        return (*first, inputs, outputs // shape.groups, *shape.kernel)
    return (*first, outputs, inputs // shape.groups, *shape.kernel)


def _multiple(model: Configurable, base: _Facts, name: str, size: int, vouched: Vouched) -> int:
    """The smallest step by which a width can grow."""
    for step in range(1, size):
        if size % step == 0:
            found = _facts(model, {name: size + step}, vouched)
            if found is not None and base.widens_to(found):
                return step
    return size


def _couplings(
    base: _Facts,
    widths: Mapping[str, Width],
    alone: Mapping[str, tuple[_Facts, _Facts]],
    together: Mapping[tuple[str, str], _Facts],
    heads: Heads,
) -> Couplings:
    """Every number as a polynomial through what was traced.

    Args:
        base: the model as it is.
        widths: the widths.
        alone: width → the model at its double and at its triple.
        together: two widths → the model at both doubles.
        heads: what attention keeps.
    """
    moves = {name: tuple(map(base.moved, found)) for name, found in alone.items()}
    both = {pair: base.moved(found) for pair, found in together.items()}
    polynomials = iter(
        [
            _polynomial(
                number,
                {
                    name: (widths[name].size, twice[place], thrice[place])
                    for name, (twice, thrice) in moves.items()
                },
                {
                    pair: moved[place] - sum(moves[name][0][place] for name in pair)
                    for pair, moved in both.items()
                },
            )
            for place, number in enumerate(base.numbers)
        ]
    )
    shapes = {name: tuple(next(polynomials) for _ in shape) for name, shape in base.shapes.items()}
    one = Polynomial.constant(1)
    return Couplings(
        widths,
        shapes,
        weight_macs={
            name: Polynomial.constant(Fraction(base.macs[name], prod(base.shapes[name])))
            * reduce(mul, shape, one)
            for name, shape in shapes.items()
        },
        product_macs={name: next(polynomials) for name in base.products},
        heads=heads if base.products else "",
    )


def _polynomial(
    number: int, alone: Mapping[str, tuple[int, int, int]], together: Mapping[tuple[str, str], int]
) -> Polynomial:
    """The polynomial of a number, at most square in each width.

    Args:
        number: at the widths as they are.
        alone: width → its size, and by how much its double and its triple move the number.
        together: two widths → by how much both doubles move it beyond what each does alone.
    """
    found = Polynomial.constant(number)
    beyond = {}
    for name, (size, twice, thrice) in alone.items():
        beyond[name] = Polynomial.symbol(name) + Polynomial.constant(-size)
        square = Fraction(thrice - 2 * twice, 2 * size * size)
        slope = Fraction(twice, size) - square * size
        found += Polynomial.constant(slope) * beyond[name]
        found += Polynomial.constant(square) * beyond[name] * beyond[name]
    for (first, second), moved in together.items():
        joint = Fraction(moved, alone[first][0] * alone[second][0])
        found += Polynomial.constant(joint) * beyond[first] * beyond[second]
    return found


def _holds(model: Configurable, base: _Facts, couplings: Couplings, vouched: Vouched) -> bool:
    """Whether the polynomials give the model at other sizes, all of them at once."""
    sizes = {
        name: width.size + (place + 1) * width.multiple_of
        for place, (name, width) in enumerate(couplings.widths.items())
    }
    found = _facts(model, sizes, vouched)
    if found is None:  # two widths that have to be equal, or multiples of each other
        sizes = {name: 4 * width.size for name, width in couplings.widths.items()}
        found = _facts(model, sizes, vouched)
    if found is None or not base.widens_to(found):
        return False
    shapes = {name: tuple(d.at(sizes) for d in shape) for name, shape in couplings.shapes.items()}
    products = {name: macs.at(sizes) for name, macs in couplings.product_macs.items()}
    return (shapes, products) == (found.shapes, found.products)
