"""The best transposable tiles: N to every row and to every column, keeping the largest sum of scores.

Three ways to the same constraint. Small tiles are tried in every pattern there is, which is exact. Larger ones are
filled greedily in descending order of score; that alone under-fills about every second 4:8 tile (arXiv 2102.08124), so
what is missing is repaired, and rows and columns then trade entries in pairs. A linear programme is exact for any size: its constraint
matrix is totally unimodular, so every vertex is a mask.

A tile at the edge of a weight that patterns do not divide is a rectangle: its shorter side's rows keep min(N, length)
each, and no column more than N, which is as much as the pattern allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, product
from math import comb
from typing import Final, Literal

import torch
from torch import Tensor

Solver = Literal["fast", "exact"]

_FEW: Final = 1296  # rows of four, two of each: what is tried, of which the columns let 90 pass
_CHUNK: Final = 65_536  # tiles at a time, to bound memory
_PROGRAMME: Final = 128  # tiles in one linear programme: larger ones take longer for each tile


def best_tiles(scores: Tensor, kept: int, solver: Solver = "fast") -> Tensor:
    """Boolean tiles with exactly `kept` entries in every row and column, and a large sum of scores.

    Ties go the same way on every run. Scores may be anything but NaN; infinities count as huge numbers.

    Args:
        scores: (tiles, rows, columns).
        kept: N; a rectangle keeps min(N, columns) in each row of its shorter side.
        solver: "fast" is within a few thousandths of the optimum on average, and exact up to 4×4; "exact" is a
            linear programme and needs SciPy.

    Example:
        >>> best_tiles(torch.tensor([[[3.0, 2.0], [2.0, 0.0]]]), 1).int().tolist()
        [[[0, 1], [1, 0]]]
    """
    tiles, rows, columns = scores.shape
    if rows > columns:
        return best_tiles(scores.transpose(1, 2), kept, solver).transpose(1, 2).contiguous()
    if kept >= columns or not tiles:
        return torch.ones_like(scores, dtype=torch.bool)
    # Trying every pattern is exact, and one matrix product for all tiles (90 patterns of 2:4); from 8×8 on
    # there are too many to try. A linear programme stays exact, but takes far longer for each tile, too long
    # for masks that change in training. So larger tiles are filled greedily and repaired, unless somebody
    # asks for the optimum.
    scores = torch.nan_to_num(scores.detach().to(torch.float64))
    if rows == columns and few_patterns(columns, kept) is not None:
        solve = _by_trying
    else:
        solve = _by_programme if solver == "exact" else _by_repair
    size = _PROGRAMME if solve is _by_programme else _CHUNK
    return torch.cat([solve(part, kept) for part in torch.split(scores, size)])


def _by_trying(scores: Tensor, kept: int) -> Tensor:
    """Every pattern's sum; among equals the first."""
    tiles, size, _ = scores.shape
    patterns = few_patterns(size, kept)
    assert patterns is not None
    patterns = patterns.to(scores.device)
    sums = scores.reshape(tiles, -1) @ patterns.flatten(1).to(scores.dtype).T
    return patterns[sums.argmax(1)]


def few_patterns(size: int, kept: int) -> Tensor | None:
    """(patterns, size, size), all there are with `kept` in every row and column; None where they are too many to try."""
    if comb(size, kept) ** size > _FEW:
        return None
    return torch.tensor(_patterns(size, kept), dtype=torch.bool).view(-1, size, size)


@lru_cache(maxsize=16)
def _patterns(size: int, kept: int) -> tuple[tuple[bool, ...], ...]:
    """All size×size masks with `kept` in every row and column, flat."""
    rows = [tuple(column in chosen for column in range(size)) for chosen in combinations(range(size), kept)]
    return tuple(
        sum(tile, ())
        for tile in product(rows, repeat=size)
        if all(sum(column) == kept for column in zip(*tile, strict=True))
    )


def _by_repair(scores: Tensor, kept: int) -> Tensor:
    _, rows, columns = scores.shape
    mask = _greedy(scores, min(kept, columns), min(kept, rows))
    _repair_(mask, scores, min(kept, columns), min(kept, rows))
    _trade_(mask, scores)  # a second round would gain some ten thousandths more
    _trade_(mask.transpose(1, 2), scores.transpose(1, 2))
    return mask


def _greedy(scores: Tensor, to_row: int, to_column: int) -> Tensor:
    """Entries in descending order, each taken while its row and its column have room."""
    tiles, rows, columns = scores.shape
    row_room = scores.new_full((tiles, rows), to_row, dtype=torch.int8)
    column_room = scores.new_full((tiles, columns), to_column, dtype=torch.int8)
    mask = torch.zeros(tiles, rows * columns, dtype=torch.bool, device=scores.device)
    order = scores.reshape(tiles, -1).argsort(dim=1, descending=True, stable=True)
    for place in order.T.contiguous().unsqueeze(-1):  # (tiles, 1), the best entry of each tile first
        row, column = place // columns, place % columns
        taken = (row_room.gather(1, row) > 0) & (column_room.gather(1, column) > 0)
        mask.scatter_(1, place, taken)
        row_room.scatter_add_(1, row, -taken.to(torch.int8))
        column_room.scatter_add_(1, column, -taken.to(torch.int8))
    return mask.view(scores.shape)


def _repair_(mask: Tensor, scores: Tensor, to_row: int, to_column: int) -> None:
    """Fill every row, one entry at a time, without overfilling a column.

    Take a row r that lacks most and a column c with room. If (r, c) is free, it is taken. Else some row r' does not
    keep c, and keeps at least as many as r, so it keeps a c' that r does not: r gets c', and r' gets c for it. So there
    is always a way, and the best of them is taken.
    """
    while True:
        lack = to_row - mask.sum(2)
        open_ = lack.any(1).nonzero().view(-1)
        if not len(open_):
            return
        tiles, values = mask[open_], scores[open_]
        row = lack[open_].argmax(1)
        column = (to_column - tiles.sum(1)).argmax(1)
        each = torch.arange(len(open_), device=mask.device)
        direct = ~tiles[each, row, column]
        able = tiles & ~tiles[each, row].unsqueeze(1) & ~tiles[each, :, column].unsqueeze(2)
        gain = values[each, row].unsqueeze(1) + values[each, :, column].unsqueeze(2) - values
        best = gain.masked_fill_(~able, -torch.inf).flatten(1).argmax(1)
        other_row, other_column = best // tiles.shape[2], best % tiles.shape[2]
        tiles[each, other_row, other_column] &= direct
        tiles[each, other_row, column] |= ~direct
        tiles[each, row, other_column] |= ~direct
        tiles[each, row, column] = True
        mask[open_] = tiles


def _trade_(mask: Tensor, scores: Tensor) -> None:
    """Every two rows, once, exchange the two entries that gain most by it; sums of rows and columns stay."""
    for first, second in _pairings(mask.shape[1]):
        a, b = mask[:, first], mask[:, second]
        better = (
            scores[:, first] - scores[:, second]
        )  # what a column gains by moving from the second to the first
        up, comes = better.masked_fill(~b | a, -torch.inf).max(2, keepdim=True)
        down, goes = better.masked_fill(~a | b, torch.inf).min(2, keepdim=True)
        gains = up > down
        mask[:, first] = a.scatter(2, comes, gains | a.gather(2, comes)).scatter(
            2, goes, ~gains & a.gather(2, goes)
        )
        mask[:, second] = b.scatter(2, comes, ~gains & b.gather(2, comes)).scatter(
            2, goes, gains | b.gather(2, goes)
        )


def _pairings(rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """Rounds of a tournament: every two rows meet once, and in a round none twice."""
    players = [*range(rows), *([rows] if rows % 2 else [])]  # one sits out where they are odd
    for _ in range(len(players) - 1):
        half = len(players) // 2
        meet = [
            (a, b)
            for a, b in zip(players[:half], reversed(players[half:]), strict=True)
            if rows not in (a, b)
        ]
        yield [a for a, _ in meet], [b for _, b in meet]
        players = [players[0], players[-1], *players[1:-1]]


def _by_programme(scores: Tensor, kept: int) -> Tensor:
    """All tiles in one sparse linear programme, solved by HiGHS's simplex, which ends in a vertex: a mask."""
    from scipy import sparse
    from scipy.optimize import linprog

    tiles, rows, columns = scores.shape
    to_row, to_column = min(kept, columns), min(kept, rows)
    scale = scores.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    sums_of_rows = sparse.kron(sparse.identity(tiles * rows), sparse.csr_array([[1.0] * columns]), "csr")
    one = sparse.kron(sparse.csr_array([[1.0] * rows]), sparse.identity(columns))
    sums_of_columns = sparse.kron(sparse.identity(tiles), one, "csr")
    found = linprog(
        -(scores / scale).flatten().numpy(force=True),
        sums_of_columns,
        [float(to_column)] * tiles * columns,
        sums_of_rows,
        [float(to_row)] * tiles * rows,
        (0, 1),
        method="highs-ds",
    )
    return torch.from_numpy(found.x > 0.5).to(scores.device).view(scores.shape)
