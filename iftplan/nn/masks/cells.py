"""The best N:M masks of a matrix: groups or tiles, the short ones among them, and what hangs over the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from iftplan.masks import NM
from iftplan.nn.masks.tiles import Solver, best_tiles
from iftplan.nn.masks.top_k import largest

Choice = Callable[[Tensor, int], Tensor]
"""(tiles, rows, columns) of scores and N to boolean tiles."""


def best_pattern(structure: NM, scores: Tensor, nnz: int, solver: Solver = "fast") -> Tensor:
    """The N:M mask with `nnz` entries that keeps the most; short are those groups that lose least by it.

    Args:
        structure: N:M, transposable or not, padded or not.
        scores: (outputs, inputs), not negative.
        nnz: a count that the structure can keep.
        solver: of transposable tiles.
    """
    outputs, inputs = scores.shape
    mask = torch.zeros_like(scores, dtype=torch.bool)
    choice: Choice = (lambda x, n: best_tiles(x, n, solver)) if structure.transposable else _of_each
    short = structure.short(((inputs, outputs),), nnz)
    for rows, columns, size in regions(structure, outputs, inputs):
        region = scores[rows, columns]
        fewer = short if size == structure.size else 0
        chosen = _with_short(cut(region, *size), structure.kept, fewer, choice)
        mask[rows, columns] = glue(chosen, region)
    return mask


def regions(structure: NM, outputs: int, inputs: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
    """Rows, columns and tile size of the part of a matrix that patterns divide, and of its edges.

    Args:
        structure: whose groups or tiles they are.
        outputs: rows of the matrix.
        inputs: columns of the matrix.
    """
    along, of = structure.size
    bottom, right = outputs // along * along, inputs // of * of
    for rows, height in ((slice(0, bottom), along), (slice(bottom, outputs), outputs - bottom)):
        for columns, width in ((slice(0, right), of), (slice(right, inputs), inputs - right)):
            if rows.start < rows.stop and columns.start < columns.stop:
                yield rows, columns, (height, width)


def cut(matrix: Tensor, height: int, width: int) -> Tensor:
    """Tiles of a matrix that they divide: (tiles, height, width).

    Args:
        matrix: (rows, columns).
        height: of a tile, which divides the rows.
        width: of a tile, which divides the columns.
    """
    rows, columns = matrix.shape
    return (
        matrix.reshape(rows // height, height, columns // width, width)
        .transpose(1, 2)
        .reshape(-1, height, width)
    )


def glue(tiles: Tensor, like: Tensor) -> Tensor:
    """The matrix, of `like`'s shape, that was cut."""
    (rows, columns), (_, height, width) = like.shape, tiles.shape
    return tiles.view(rows // height, columns // width, height, width).transpose(1, 2).reshape(rows, columns)


def _of_each(groups: Tensor, kept: int) -> Tensor:
    count = min(kept, groups.shape[2])
    return largest(groups.reshape(-1, groups.shape[2]), count).view(groups.shape)


def _with_short(cells: Tensor, kept: int, short: int, choice: Choice) -> Tensor:
    chosen = choice(cells, kept)
    if not short:
        return chosen
    fewer = choice(cells, kept - 1) if kept > 1 else torch.zeros_like(chosen)
    worth = (cells * chosen).sum((1, 2)) - (cells * fewer).sum((1, 2))
    # sums that overflow have no difference, and must not cost their group its place in the count
    worth = worth.nan_to_num(nan=0.0).clamp(min=0)
    whole = largest(worth.view(1, -1), len(cells) - short).view(-1, 1, 1)
    return torch.where(whole, chosen, fewer)
