"""Integers of a structure: widths, branches and ranks, chosen exactly, before a mask closes the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, lcm, prod

from iftplan.base.errors import InfeasibleError, TooSmallError
from iftplan.base.units import decimal_text
from iftplan.families.family import Exact, Family
from iftplan.families.integer_search import Multiplier, largest_integer, round_up, smallest_integer
from iftplan.families.solution import Structure
from iftplan.families.transforms.blocks import FactorGrid
from iftplan.masks import MaskStructure, Matrices
from iftplan.models.spec import Kind, LayerSpec

_MOST_BRANCHES = 10**6  # each is a matrix of its own, in memory


@dataclass(frozen=True, slots=True)
class IntegerStructure:
    """A layer at integer sizes.

    Attributes:
        layer: the layer at its new width (the dense layer, where the family does not widen).
        structure: the integers chosen.
        matrices: shapes of the masked matrices.
        capacity: weights under the mask.
        dense_weights: weights that are never masked.
        reuse: how often each of these is used at one position, on average.
    """

    layer: LayerSpec
    structure: Structure
    matrices: Matrices
    capacity: int
    dense_weights: int
    reuse: Fraction = Fraction(1)

    @property
    def dense_uses(self) -> int:
        """Uses of the weights that are never masked, at one position: their number times their reuse."""
        return int(self.dense_weights * self.reuse)


def integer_structure(
    layer: LayerSpec, family: Family, density: Fraction, mask: MaskStructure, round_to: int = 1
) -> IntegerStructure:
    """The layer at integer sizes, before the mask closes the budget.

    Args:
        layer: the dense layer, with channels.
        family: whose structure is taken.
        density: the fraction of weights to keep, in (0, 1].
        mask: structure of the masks, which may ask sizes to be multiples.
        round_to: widths become multiples of this.

    Raises:
        InfeasibleError: the structure would be smaller than one.
    """
    wide = _widen(layer, family, density, mask, round_to)
    structure: dict[str, int | float | None] = {}
    unknown = 1
    if family.definition.widens or family.solves_width:
        multiplier = multiplier_of(layer, family, density)
        structure = {
            "in_channels": wide.in_channels,
            "out_channels": wide.out_channels,
            "multiplier": multiplier,
        }
    if not family.solves_width:
        unknown = _integer(layer, wide, family, density)
        structure[family.definition.structure] = unknown
    return at_structure(wide, family, unknown, structure)


def at_structure(wide: LayerSpec, family: Family, unknown: int, structure: Structure) -> IntegerStructure:
    """Masked and dense weights of a layer at its new width, for an integer structure.

    Args:
        wide: the layer at its new width.
        family: whose structure is taken.
        unknown: number of branches, rank, or 1 for families that only widen.
        structure: what documents say of it, by name.
    """
    degree = 1 if wide.depthwise else 2
    m, n = wide.fan_in, wide.fan_out
    capacity = wide.copies * int(family.form.masked(m, n, unknown, degree, 1))
    macs = wide.copies * int(fixed_macs(wide, family, unknown, degree))
    grid, dense = grid_of(wide, family), macs
    if grid is not None:
        dense = wide.copies * grid.weights(wide, unknown)
    shape = family.definition.matrices
    vectors = ((capacity // wide.experts, 1),) * wide.experts
    matrices = shape(m, n, unknown) * wide.copies if shape else vectors
    reuse = Fraction(macs, dense) if dense else Fraction(1)
    return IntegerStructure(wide, structure, matrices, capacity, dense, reuse)


def grid_of(wide: LayerSpec, family: Family) -> FactorGrid | None:
    """Blocks that a family cuts a layer into; None in families without blocks.

    Args:
        wide: the layer at its new width.
        family: whose structure is taken.
    """
    if family.definition.grid is None:
        return None
    assert wide.in_channels is not None and wide.out_channels is not None
    return family.definition.grid(wide.in_channels, wide.out_channels)


def fixed_macs(wide: LayerSpec, family: Family, unknown: int, degree: int = 2) -> Exact | float:
    """MACs per position that no mask changes, of one of a layer's matrices: by the family's cost, or by its blocks, which are whole.

    Args:
        wide: the layer at its new width.
        family: whose structure is taken.
        unknown: number of branches, rank, or 1 for families that only widen.
        degree: how fast weights grow with the width.
    """
    if (grid := grid_of(wide, family)) is not None:
        return grid.macs(wide, unknown)
    return family.form.fixed(wide.fan_in, wide.fan_out, unknown, degree, 1)


def structure_at_width(
    layer: LayerSpec, wide: LayerSpec, family: Family, density: Fraction
) -> IntegerStructure:
    """The layer in a family that has branches or a rank, at widths that its neighbours set, at the cost of the dense layer.

    Args:
        layer: the dense layer, with channels.
        wide: the layer at its new width.
        family: whose structure is taken; one that solves for more than the width.
        density: the fraction of weights to keep, in (0, 1].

    Raises:
        InfeasibleError: the structure would be smaller than one.
    """
    unknown = _integer(layer, wide, family, density)
    return at_structure(wide, family, unknown, {family.definition.structure: unknown})


def multiplier_of(layer: LayerSpec, family: Family, density: Fraction) -> float:
    """Width multiplier k, a real number, at which the layer's equation is met.

    Args:
        layer: the dense layer, with channels.
        family: one that widens.
        density: the fraction of weights to keep, in (0, 1].
    """
    if not family.solves_width:
        return float(Multiplier.closing(density))
    products = Fraction(layer.products_per_position, layer.copies)
    root = family.form.root(layer)
    return float(root.value(layer.fan_in, layer.fan_out, density, 1.0, products))


def _widen(
    layer: LayerSpec, family: Family, density: Fraction, mask: MaskStructure, round_to: int
) -> LayerSpec:
    """The layer at its new width; unchanged at density 1 and in families that keep the width."""
    if density == 1 or not (family.definition.widens or family.solves_width):
        return layer
    assert layer.in_channels is not None and layer.out_channels is not None
    in_unit, out_unit = _units(layer, mask, round_to)
    if layer.depthwise:
        times = layer.out_channels // layer.in_channels  # filters of each channel
        unit = lcm(in_unit, out_unit // gcd(out_unit, times))
        channels = _grow(layer, family, density, mask, layer.in_channels, unit)
        return replace(layer, in_channels=channels, out_channels=channels * times, groups=channels)
    out_channels = _grow(layer, family, density, mask, layer.out_channels, out_unit)
    if not family.definition.widens:
        return replace(layer, out_channels=out_channels)
    in_channels = _grow(layer, family, density, mask, layer.in_channels, in_unit)
    return replace(layer, in_channels=in_channels, out_channels=out_channels)


def _units(layer: LayerSpec, mask: MaskStructure, round_to: int) -> tuple[int, int]:
    """What input and output widths must be multiples of: rounding, heads, groups, the mask's pattern."""
    inputs, outputs = mask.multiples
    if layer.depthwise:
        return round_to, lcm(round_to, outputs)
    unit = lcm(round_to, layer.heads or 1, layer.groups)
    before, after = (1, prod(layer.kernel)) if layer.kind.transposed else (prod(layer.kernel), 1)
    in_unit = lcm(unit, inputs // gcd(inputs, before) * layer.groups)
    out_unit = lcm(unit, outputs // gcd(outputs, after))
    if layer.kind is Kind.ATTENTION:  # its projections map a width onto itself
        return (lcm(in_unit, out_unit),) * 2
    return in_unit, out_unit


def _grow(
    layer: LayerSpec, family: Family, density: Fraction, mask: MaskStructure, channels: int, multiple: int
) -> int:
    """The smallest width that covers the budget; under a fixed pattern, the largest that stays within it."""
    guess = multiplier_of(layer, family, density) * channels
    if mask.density is None:
        covers = smallest_integer(
            guess, lambda w: _excess(layer, family, Fraction(w, channels), density) >= 0
        )
        return round_up(covers, multiple)
    within = largest_integer(guess, lambda w: _excess(layer, family, Fraction(w, channels), density) <= 0)
    if within < multiple:
        raise InfeasibleError(
            f"{mask}: {layer.name} can grow from {channels} to at most {within} channels, but the pattern needs a "
            f"multiple of {multiple}; choose a higher sparsity or a smaller pattern."
        )
    return within // multiple * multiple


def _excess(layer: LayerSpec, family: Family, k: Fraction, density: Fraction) -> Fraction:
    """Cost at multiplier k minus the dense cost, per position."""
    if not family.solves_width:  # the width of Sparse Wide, whatever else is solved for
        return k * k * density - 1
    degree = 1 if layer.depthwise else 2
    m, n = layer.fan_in, layer.fan_out
    cost = family.form.masked(m, n, k, degree, 1) * density + family.form.fixed(m, n, k, degree, 1)
    return Fraction(layer.copies * (cost - m * n) + layer.products_per_position * (k - 1))


def _integer(layer: LayerSpec, wide: LayerSpec, family: Family, density: Fraction) -> int:
    """The unknown as an integer: up where the mask closes the budget, down where dense parts must stay within it."""
    m, n, form = wide.fan_in, wide.fan_out, family.form
    k = multiplier_of(layer, family, density) if family.definition.widens else 1.0
    products = layer.products_per_position - wide.products_per_position
    budget = Fraction(layer.weights + products, layer.copies)
    share = budget / (layer.fan_in * layer.fan_out)
    real = float(form.full.value(layer.fan_in, layer.fan_out, density, k, 0)) * float(share)

    def cost(x: int) -> Fraction:
        return Fraction(form.masked(m, n, x, 2, 1) * density + fixed_macs(wide, family, x))

    unit = rank_unit(layer, family)
    if family.definition.structure == "branches" and real > _MOST_BRANCHES:
        raise InfeasibleError(
            f"{family.name}: {layer.name} at sparsity {decimal_text(1 - density)} would need {real:.4g} branches; "
            f"iftplan plans at most {_MOST_BRANCHES}."
        )
    if form.covers:
        return round_up(smallest_integer(real, lambda x: cost(x) >= budget), unit)
    x = largest_integer(real, lambda x: cost(x) <= budget) // unit * unit
    if x < 1 and (density < 1 or not form.masked(m, n, 1, 2, 1)):
        raise TooSmallError(
            f"{family.name}: {layer.name} at sparsity {decimal_text(1 - density)} would need a "
            f"{family.definition.structure} of {real:.4g}, but the smallest is {unit}."
        )
    return x


def rank_unit(layer: LayerSpec, family: Family) -> int:
    """Number that a rank must be a multiple of: U keeps the groups of the convolution that it replaces."""
    return layer.groups if family.definition.structure == "rank" else 1
