"""N:M masks: groups or tiles, the short ones among them, and what hangs over the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from iftplan.base.errors import InputError
from iftplan.masks.structures.n_m import NM
from iftplan.nn.masks.cells import cut, glue
from iftplan.nn.masks.rows import Groups
from iftplan.nn.masks.structured import Masks, Shape
from iftplan.nn.masks.subsets import subset
from iftplan.nn.masks.tiles import Solver, best_tiles, few_patterns
from iftplan.nn.masks.top_k import top_k_mask

Choice = Callable[[Tensor, int], Tensor]
"""(tiles, rows, columns) of scores and N to boolean tiles."""


class NMMasks(Masks[NM]):
    """Masks of groups or tiles with N, of which any are short, with N-1; edges hold what they can."""

    __slots__ = ()

    def draw(self, shape: Shape, nnz: int, generator: Generator) -> Tensor:
        """Random N:M mask; which groups are short is random too, and tiles above 4×4 are shuffled circulants.

        Args:
            shape: (outputs, inputs).
            nnz: a count of the structure.
            generator: of the random numbers.
        """
        structure, mask = self.structure, torch.zeros(shape, dtype=torch.bool)
        short = structure.short(((shape[1], shape[0]),), nnz)
        for rows, columns, size in _regions(structure, *shape):
            region = mask[rows, columns]
            cells = region.numel() // (size[0] * size[1])
            fewer = short if size == structure.size else 0
            kept = structure.kept - subset(cells, fewer, generator).to(torch.int64)
            draw = _tiles if structure.transposable else _groups
            mask[rows, columns] = glue(draw(cells, size, kept, generator), region)
        return mask

    def best(self, scores: Tensor, nnz: int, solver: Solver) -> Tensor:
        """N:M mask that keeps the most; short are those groups that lose least by it.

        Args:
            scores: (outputs, inputs), not negative.
            nnz: a count of the structure.
            solver: of transposable tiles: "fast", or "exact", which needs SciPy.
        """
        structure, (outputs, inputs) = self.structure, scores.shape
        mask = torch.zeros_like(scores, dtype=torch.bool)
        choice: Choice = (lambda x, n: best_tiles(x, n, solver)) if structure.transposable else _of_each
        short = structure.short(((inputs, outputs),), nnz)
        for rows, columns, size in _regions(structure, outputs, inputs):
            region = scores[rows, columns]
            fewer = short if size == structure.size else 0
            chosen = _with_short(cut(region, *size), structure.kept, fewer, choice)
            mask[rows, columns] = glue(chosen, region)
        return mask

    def holds(self, mask: Tensor) -> bool:
        """Whether every group or tile has N or N-1; `structure.short` says how many a count implies to be short."""
        structure = self.structure
        return all(
            _tiles_hold(structure, cut(mask[rows, columns], *size), whole=size == structure.size)
            for rows, columns, size in _regions(structure, *mask.shape)
        )

    def layout(self, experts: int = 1) -> Groups:
        """Layout with a row for every group.

        Raises:
            InputError: tiles, of which no row can be chosen alone.
        """
        if self.structure.transposable:
            raise InputError(
                f"masks of structure {self.structure} cannot be chosen row by row, as this method does; train them "
                f"with static, ste, srste or transposable, or use {str(self.structure).replace('T', '')}."
            )
        return Groups(self.structure.of, self.structure.kept)


def _regions(structure: NM, outputs: int, inputs: int) -> Iterator[tuple[slice, slice, tuple[int, int]]]:
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


def _of_each(groups: Tensor, kept: int) -> Tensor:
    count = min(kept, groups.shape[2])
    return top_k_mask(groups.reshape(-1, groups.shape[2]), count).view(groups.shape)


def _with_short(cells: Tensor, kept: int, short: int, choice: Choice) -> Tensor:
    chosen = choice(cells, kept)
    if not short:
        return chosen
    fewer = choice(cells, kept - 1) if kept > 1 else torch.zeros_like(chosen)
    worth = (cells * chosen).sum((1, 2)) - (cells * fewer).sum((1, 2))
    # sums that overflow have no difference, and must not cost their group its place in the count
    worth = worth.nan_to_num(nan=0.0).clamp(min=0)
    whole = top_k_mask(worth.view(1, -1), len(cells) - short).view(-1, 1, 1)
    return torch.where(whole, chosen, fewer)


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


def _tiles_hold(structure: NM, tiles: Tensor, *, whole: bool) -> bool:
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
