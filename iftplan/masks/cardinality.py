"""How many masks there are to search: log2 of mask counts, in bits.

Unstructured masks are counted as `log2 C(N, nnz)`. Integers are exact while that is cheap; beyond, the
entropy form of Stirling's series is used, which loses nothing to cancellation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import comb, e, log, log1p, log2, pi
from typing import Final

_EXACT_UP_TO = 1024

EXACT_TILE: Final = 12
"""The shorter side of the largest tile whose masks are counted one way after another."""


@dataclass(frozen=True, slots=True)
class Cardinality:
    """The size of a search space.

    Attributes:
        maskable_weights: weights that a sparse trainer can explore (the paper's definition); None while
            channels are symbolic.
        log2_masks: bits needed to name one mask; None while channels are symbolic.
    """

    maskable_weights: int | None = None
    log2_masks: float | None = None


def log2_choose(n: int, k: int) -> float:
    """log2 of the binomial coefficient C(n, k), to about 1e-13 relative.

    Raises:
        ValueError: k outside 0…n.

    Example:
        >>> round(log2_choose(4, 2), 6)
        2.584963
    """
    if not 0 <= k <= n:
        raise ValueError(f"cannot choose {k} of {n} weights")
    k = min(k, n - k)
    return log2(comb(n, k)) if k <= _EXACT_UP_TO else _log2_choose_large(n, k)


def _log2_choose_large(n: int, k: int) -> float:
    rest = n - k
    entropy = k * (log(n) - log(k)) - rest * log1p(-k / n)
    correction = 0.5 * log(n / (2 * pi * k * rest)) + _stirling(n) - _stirling(k) - _stirling(rest)
    return (entropy + correction) / log(2)


def _stirling(x: int) -> float:
    """ln x! - ln(√(2πx)·(x/e)^x), from the first terms of its series."""
    return 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)


@lru_cache(maxsize=64)
def tile_masks(rows: int, columns: int, kept: int) -> int:
    """Number of rows×columns masks that keep as many as they can with at most `kept` in every row and column.

    A square that is longer than `kept` has exactly `kept` ones in each. In a rectangle the shorter side's rows are full and
    the other side's may not be. Counted row by row over the multiset of what columns can still take.

    Args:
        rows: of the tile.
        columns: of the tile.
        kept: N of N:M.

    Example:
        >>> tile_masks(4, 4, 2), tile_masks(8, 8, 1), tile_masks(1, 4, 2)
        (90, 40320, 6)
    """
    if rows > columns:
        return tile_masks(columns, rows, kept)
    to_row, to_column = min(kept, columns), min(kept, rows)
    # state[i] = columns that can take i ones more
    states = {(*(0 for _ in range(to_column)), columns): 1}
    for _ in range(rows):
        following: dict[tuple[int, ...], int] = {}
        for state, ways in states.items():
            for after, count in _fill_row(state, to_row, to_column):
                following[after] = following.get(after, 0) + ways * count
        states = following
    return sum(states.values())


def log2_tile_masks(size: int, kept: int) -> float:
    """Bits to name one size×size mask with exactly `kept` ones in every row and column.

    Up to 12×12 by exact counting, which takes ten times longer with every other row; beyond by the asymptotic formula of Canfield
    and McKay (Electronic Journal of Combinatorics 12, 2005, theorem 1), which is within .02 bits of a 12×12 tile, and closer
    the larger the tile.

    Args:
        size: M of N:M.
        kept: N of N:M.

    Example:
        >>> round(log2_tile_masks(4, 2), 3), round(log2_tile_masks(32, 16), 1)
        (6.492, 847.1)
    """
    if size <= EXACT_TILE or kept in (0, size):
        return log2(tile_masks(size, size, kept))
    whole = 2 * size * log2_choose(size, kept) - log2_choose(size * size, size * kept)
    return whole + (size - 1) * log2(1 - 1 / size) + log2(e) / 2


def _fill_row(state: tuple[int, ...], ones: int, need: int) -> Iterable[tuple[tuple[int, ...], int]]:
    """Ways to put `ones` more ones into columns that need at most `need`, and the columns' new needs."""
    if need == 0:
        if ones == 0:
            yield state, 1
        return
    for chosen in range(min(ones, state[need]) + 1):
        lower = list(state)
        lower[need] -= chosen
        for after, count in _fill_row(tuple(lower), ones - chosen, need - 1):
            filled = list(after)
            filled[need - 1] += chosen
            yield tuple(filled), count * comb(state[need], chosen)
