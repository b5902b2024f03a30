"""Which positions of a kernel read the same pixels, a row of targets further on: chains, gathered once for all of them.

Targets of one tile lie below each other: vector z holds targets of row z. Position r of a 3×3 kernel reads source row
z + r, so that six rows serve three positions of four targets each; under a stride, only positions that a whole number of
strides lies between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chain:
    """Positions that share vectors.

    Attributes:
        positions: of the kernel, numbered row by row.
        ahead: how many vectors further on than the first each of them reads.
    """

    positions: tuple[int, ...]
    ahead: tuple[int, ...]

    @property
    def span(self) -> int:
        """Vectors that are read beyond those of one position."""
        return max(self.ahead)

    @property
    def first(self) -> int:
        """The position that reads the first vector."""
        return self.positions[self.ahead.index(0)]


@dataclass(frozen=True, slots=True)
class Chains:
    """All positions of a kernel, in chains.

    Attributes:
        kernel: height and width.
        chains: every position is in one of them.
    """

    kernel: Pair
    chains: tuple[Chain, ...]

    @property
    def plain(self) -> bool:
        """Whether no two positions share anything, so that targets may come in any order."""
        return all(not chain.span for chain in self.chains)

    def vectors(self, count: int) -> NDArray[np.int64]:
        """First vector of each chain among the vectors of all, and the end, for targets of `count` rows."""
        return np.array([0, *accumulate(count + chain.span for chain in self.chains)], np.int64)


@lru_cache(maxsize=64)
def chains_of(kernel: Pair, step: int = 1, period: int = 1) -> Chains:
    """The chains of a sweep.

    Args:
        kernel: height and width.
        step: source rows from one position to the next below it (the dilation; negative backwards), before division.
        period: the same from one target row to the next (the stride).

    Example:
        >>> [(chain.positions, chain.ahead) for chain in chains_of((3, 1), 1, 2).chains]
        [((0, 2), (0, 1)), ((1,), (0,))]
    """
    height, width = kernel
    found = []
    for column in range(width):
        groups: dict[int, list[int]] = {}
        for row in range(height):
            groups.setdefault(row * step % period, []).append(row)
        for rows in groups.values():
            ahead = [row * step // period for row in rows]
            lowest = min(ahead)
            found.append(Chain(tuple(row * width + column for row in rows), tuple(a - lowest for a in ahead)))
    return Chains(kernel, tuple(found))
