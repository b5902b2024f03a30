"""Whether a mask has the structure that it should have: the constraint of each structure, checked entry by entry."""

from __future__ import annotations

from torch import Tensor

from iftplan.base.errors import InfeasibleError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, MaskStructure, Unstructured
from iftplan.nn.masks.cells import cut, regions


def holds(structure: MaskStructure, mask: Tensor) -> bool:
    """Whether a boolean matrix (outputs, inputs) is a mask of the structure.

    An N:M mask may have short groups, with N-1; `structure.short` says how many a count implies.

    Example:
        >>> import torch
        >>> holds(NM(1, 2), torch.tensor([[True, False, True, True]]))
        False
    """
    outputs, inputs = mask.shape
    try:
        if int(mask.count_nonzero()) not in structure.counts(((inputs, outputs),)):
            return False
    except InfeasibleError:
        return False
    match structure:
        case Unstructured():
            return True
        case ConstantFanIn():
            return _alike(mask.sum(1))
        case Channel():
            return _all_or_none(mask)
        case Block():
            return _blocks(structure, mask)
        case NM():
            return all(
                _tiles(structure, cut(mask[rows, columns], *size), whole=size == structure.size)
                for rows, columns, size in regions(structure, outputs, inputs)
            )
        case _:
            return False


def _alike(counts: Tensor) -> bool:
    return bool((counts == counts[:1]).all())


def _all_or_none(cells: Tensor) -> bool:
    flat = cells.flatten(1)
    return bool((flat == flat[:, :1]).all())


def _blocks(structure: Block, mask: Tensor) -> bool:
    outputs, inputs = mask.shape
    bottom, right = (
        outputs // structure.width * structure.width,
        inputs // structure.height * structure.height,
    )
    whole = mask[:bottom, :right]
    edges = bool(mask[bottom:].all()) and bool(mask[:, right:].all())
    return edges and (not whole.numel() or _all_or_none(cut(whole, structure.width, structure.height)))


def _tiles(structure: NM, tiles: Tensor, *, whole: bool) -> bool:
    """Rows and columns of every tile, or the inputs of every group."""
    by_row, by_column = tiles.sum(2), tiles.sum(1)
    _, height, width = tiles.shape
    if not structure.transposable:
        least = structure.kept - 1 if whole else min(structure.kept, width)
        return bool(((by_row >= least) & (by_row <= structure.kept)).all())
    if whole:  # all N, or all N-1
        kept = by_row[:, :1]
        sums = bool((by_row == kept).all()) and bool((by_column == kept).all())
        return sums and bool(((kept == structure.kept) | (kept == structure.kept - 1)).all())
    full, other = (by_row, by_column) if height <= width else (by_column, by_row)
    return (
        bool((full == min(structure.kept, max(height, width))).all()) and int(other.max()) <= structure.kept
    )
