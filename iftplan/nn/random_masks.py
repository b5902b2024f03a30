"""Random masks with exact counts: one weight matrix, one structure, one stream of random numbers.

Counts are whole numbers from a plan and never the outcome of coin flips; every mask of a structure is
possible, and unstructured ones are uniform among all masks of their count.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import torch
from torch import Generator, Tensor

from iftplan.errors import InputError
from iftplan.masks import NM, Block, ConstantFanIn, MaskStructure, Unstructured

Shape = tuple[int, int]
"""(outputs, inputs) of one weight matrix."""

_SMALL: Final = 4096  # below, a permutation is cheap


def random_mask(structure: MaskStructure, shape: Shape, nnz: int, generator: Generator) -> Tensor:
    """A boolean matrix of `shape` (outputs, inputs) with exactly `nnz` true entries.

    Raises:
        InputError: the structure has no mask of this shape and count.
    """
    outputs, inputs = shape
    match structure:
        case Unstructured():
            mask = _subset(outputs * inputs, nnz, generator).view(outputs, inputs)
        case Block():
            mask = _blocks(structure, shape, nnz, generator)
        case ConstantFanIn():
            mask = _of_each(outputs, inputs, nnz // outputs, generator)
        case NM() if structure.transposable:
            mask = _tiles(structure, shape, generator)
        case NM():
            mask = _of_each(outputs * inputs // structure.of, structure.of, structure.kept, generator)
        case _:
            raise InputError(f"masks of structure {structure} cannot be drawn.")
    if mask.numel() != outputs * inputs or int(mask.count_nonzero()) != nnz:
        raise InputError(
            f"{structure} masks of {inputs} inputs and {outputs} outputs cannot keep {nnz} weights; a plan with this structure keeps whole patterns only."
        )
    return mask.reshape(outputs, inputs)


def shares(structure: MaskStructure, nnz: int, shapes: Sequence[Shape]) -> tuple[int, ...]:
    """How many of one layer's `nnz` weights each of its matrices keeps; they add up exactly.

    In proportion to what the matrices hold, in whole steps of the structure, the largest remainders first.
    """
    numel = [outputs * inputs for outputs, inputs in shapes]
    match structure:
        case Block():
            area = structure.height * structure.width
            return tuple(n * area for n in _apportion(nnz // area, [n // area for n in numel]))
        case ConstantFanIn():
            fan_in = nnz // sum(outputs for outputs, _ in shapes)
            return tuple(fan_in * outputs for outputs, _ in shapes)
        case _:
            return _apportion(nnz, numel)


def _apportion(total: int, capacities: Sequence[int]) -> tuple[int, ...]:
    """Largest remainders; among equals the first."""
    exact = [Fraction(total * c, sum(capacities)) for c in capacities]
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
    rows, columns = shape[0] // structure.width, shape[1] // structure.height
    chosen = _subset(rows * columns, nnz // (structure.width * structure.height), generator)
    tiles = chosen.view(rows, columns)
    return tiles.repeat_interleave(structure.width, 0).repeat_interleave(structure.height, 1)


def _tiles(structure: NM, shape: Shape, generator: Generator) -> Tensor:
    """Every M×M tile a circulant with N to a row and a column, its rows and columns shuffled."""
    size, (rows, columns) = structure.of, (shape[0] // structure.of, shape[1] // structure.of)
    steps = torch.arange(size)
    circulant = (steps[:, None] - steps) % size < structure.kept
    by_row = torch.rand(rows * columns, size, generator=generator).argsort(1)
    by_column = torch.rand(rows * columns, size, generator=generator).argsort(1)
    tiles = circulant[by_row[:, :, None], by_column[:, None, :]]
    return tiles.view(rows, columns, size, size).transpose(1, 2).reshape(rows * size, columns * size)
