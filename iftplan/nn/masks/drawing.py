"""Random masks with exact counts: one weight matrix, one structure, one stream of random numbers.

Counts are whole numbers from a plan and never the outcome of coin flips. Every mask of a structure is possible, and all
are equally likely, but for transposable tiles above 4×4, which are shuffled circulants, and at edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import torch
from torch import Generator, Tensor

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, MaskStructure, Unstructured
from iftplan.nn.masks.cells import glue, regions
from iftplan.nn.masks.tiles import best_tiles, few_patterns

Shape = tuple[int, int]
"""(outputs, inputs) of one weight matrix."""

_SMALL: Final = 4096  # below, a permutation is cheap


def random_mask(structure: MaskStructure, shape: Shape, nnz: int, generator: Generator) -> Tensor:
    """Random boolean matrix of `shape` (outputs, inputs) with exactly `nnz` true entries.

    Args:
        structure: of the mask.
        shape: (outputs, inputs).
        nnz: how many weights are kept.
        generator: of the random numbers.

    Raises:
        InputError: the structure has no mask of this shape and count.
    """
    outputs, inputs = shape
    if nnz not in _counts(structure, shape):
        raise InputError(
            f"{structure} masks of {inputs} inputs and {outputs} outputs cannot keep {nnz} weights; a plan with this structure keeps whole patterns only."
        )
    match structure:
        case Unstructured():
            return _subset(outputs * inputs, nnz, generator).view(outputs, inputs)
        case Block():
            return _blocks(structure, shape, nnz, generator)
        case ConstantFanIn():
            return _of_each(outputs, inputs, nnz // outputs, generator)
        case Channel():
            return _subset(outputs, nnz // inputs, generator).view(-1, 1).repeat(1, inputs)
        case NM():
            return _pattern(structure, shape, nnz, generator)
        case _:
            raise InputError(f"masks of structure {structure} cannot be drawn.")


def shares(structure: MaskStructure, nnz: int, shapes: Sequence[Shape]) -> tuple[int, ...]:
    """Number of weights that each of one layer's matrices keeps; they add up to `nnz`.

    In proportion to what the matrices hold, in whole steps of the structure, the largest remainders first.

    Args:
        structure: of the masks.
        nnz: of the layer.
        shapes: (outputs, inputs) of its matrices.
    """
    if isinstance(structure, ConstantFanIn):
        fan_in = nnz // sum(outputs for outputs, _ in shapes)
        return tuple(fan_in * outputs for outputs, _ in shapes)
    choices = [_counts(structure, shape) for shape in shapes]
    steps = (nnz - sum(each.start for each in choices)) // choices[0].step
    shared = _apportion(steps, [len(each) - 1 for each in choices])
    return tuple(each.start + n * each.step for each, n in zip(choices, shared, strict=True))


def _counts(structure: MaskStructure, shape: Shape) -> range:
    outputs, inputs = shape
    try:
        return structure.counts(((inputs, outputs),))
    except InfeasibleError as error:
        raise InputError(str(error)) from error


def _apportion(total: int, capacities: Sequence[int]) -> tuple[int, ...]:
    """Largest remainders; among equals the first."""
    exact = [Fraction(total * c, sum(capacities) or 1) for c in capacities]
    counts = [int(e) for e in exact]
    order = sorted(range(len(counts)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


def _subset(numel: int, kept: int, generator: Generator) -> Tensor:
    """A uniformly random set of `kept` out of `numel`.

    A coin for each, then the surplus (or what is missing) is drawn by the same means: by symmetry the result
    is uniform, and a permutation of many millions is not needed.
    """
    if numel <= _SMALL:
        mask = torch.zeros(numel, dtype=torch.bool)
        mask[torch.randperm(numel, generator=generator)[:kept]] = True
        return mask
    mask = torch.rand(numel, generator=generator) < kept / numel
    surplus = int(mask.count_nonzero()) - kept
    if surplus:
        candidates = (mask if surplus > 0 else ~mask).nonzero().view(-1)
        mask[candidates[_subset(len(candidates), abs(surplus), generator)]] = surplus < 0
    return mask


def _of_each(groups: int, size: int, kept: int, generator: Generator) -> Tensor:
    """`kept` of every row's `size`."""
    order = torch.rand(groups, size, generator=generator).argsort(1)
    return torch.zeros(groups, size, dtype=torch.bool).scatter_(1, order[:, :kept], True)


def _blocks(structure: Block, shape: Shape, nnz: int, generator: Generator) -> Tensor:
    """Any blocks of full size; what hangs over the edge stays."""
    rows, columns = shape[0] // structure.width, shape[1] // structure.height
    edge = shape[0] * shape[1] - rows * columns * structure.area
    chosen = _subset(rows * columns, (nnz - edge) // structure.area, generator)
    mask = torch.ones(shape, dtype=torch.bool)
    whole = chosen.view(rows, columns).repeat_interleave(structure.width, 0)
    mask[: rows * structure.width, : columns * structure.height] = whole.repeat_interleave(
        structure.height, 1
    )
    return mask


def _pattern(structure: NM, shape: Shape, nnz: int, generator: Generator) -> Tensor:
    """Groups or tiles, of which any are short; edges hold what they can."""
    mask = torch.zeros(shape, dtype=torch.bool)
    short = structure.short(((shape[1], shape[0]),), nnz)
    for rows, columns, size in regions(structure, *shape):
        region = mask[rows, columns]
        cells = region.numel() // (size[0] * size[1])
        fewer = short if size == structure.size else 0
        kept = structure.kept - _subset(cells, fewer, generator).to(torch.int64)
        draw = _tiles if structure.transposable else _groups
        mask[rows, columns] = glue(draw(cells, size, kept, generator), region)
    return mask


def _groups(cells: int, size: Shape, kept: Tensor, generator: Generator) -> Tensor:
    """`kept` of every group."""
    order = torch.rand(cells, size[1], generator=generator).argsort(1).argsort(1)
    return (order < kept.view(-1, 1)).view(cells, *size)


def _tiles(cells: int, size: Shape, kept: Tensor, generator: Generator) -> Tensor:
    """Tiles with `kept` in every row and column; of small ones any, of large ones shuffled circulants."""
    tiles = torch.zeros(cells, *size, dtype=torch.bool)
    for n in sorted(set(kept.tolist())):
        some = (kept == n).nonzero().view(-1)
        tiles[some] = _alike(len(some), size, n, generator)
    return tiles


def _alike(cells: int, size: Shape, kept: int, generator: Generator) -> Tensor:
    height, width = size
    if kept >= max(size):
        return torch.ones(cells, height, width, dtype=torch.bool)
    patterns = few_patterns(height, kept) if height == width else None
    if patterns is not None:
        return patterns[torch.randint(len(patterns), (cells,), generator=generator)]
    if height != width:  # an edge: few tiles, and rows that are full where columns need not be
        return best_tiles(torch.rand(cells, height, width, generator=generator), kept)
    steps = torch.arange(height)
    circulant = (steps[:, None] - steps) % height < kept
    by_row = torch.rand(cells, height, generator=generator).argsort(1)
    by_column = torch.rand(cells, height, generator=generator).argsort(1)
    return circulant[by_row[:, :, None], by_column[:, None, :]]
