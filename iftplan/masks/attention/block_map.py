"""Maps of blocks: any set of square blocks of queries and keys, as FlexAttention's block masks keep them."""

from __future__ import annotations

from dataclasses import dataclass

from iftplan.base.errors import InputError
from iftplan.masks.attention.band import Band


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Blocks of queries and keys that are kept whole.

    Attributes:
        size: queries and keys of a block; those at the edge may be smaller.
        rows: for each block of queries, a digit for each block of keys: "1" where it is kept.
    """

    size: int
    rows: tuple[str, ...]

    def __str__(self) -> str:
        return f"blocks:{self.size}:{'/'.join(self.rows)}"

    def keeps(self, query: int, key: int) -> bool:
        """Whether the block of a query and a key is kept.

        Args:
            query: position of the query.
            key: position of the key.
        """
        return self.rows[query // self.size][key // self.size] == "1"

    def pairs(self, band: Band, queries: int, keys: int) -> int:
        """Number of pairs in the kept blocks that lie in a band too.

        Args:
            band: all pairs, those of causal attention, or of a window.
            queries: number of queries.
            keys: number of keys.

        Raises:
            InputError: the map has too few blocks for that many queries or keys.
        """
        high, wide = self._used(queries, keys)
        return sum(
            band.pairs(
                min(self.size, queries - row * self.size),
                min(self.size, keys - column * self.size),
                (column - row) * self.size,
            )
            for row in range(high)
            for column in range(wide)
            if self.rows[row][column] == "1"
        )

    def capped(self, most: int, queries: int, keys: int) -> int:
        """Number of pairs in the kept blocks where no query keeps more than `most` of its keys.

        Args:
            most: keys that a query keeps of those that it sees.
            queries: number of queries.
            keys: number of keys.

        Raises:
            InputError: the map has too few blocks for that many queries or keys.
        """
        high, wide = self._used(queries, keys)
        widths = [min(self.size, keys - column * self.size) for column in range(wide)]
        return sum(
            min(self.size, queries - row * self.size)
            * min(
                most, sum(width for width, kept in zip(widths, self.rows[row], strict=False) if kept == "1")
            )
            for row in range(high)
        )

    def _used(self, queries: int, keys: int) -> tuple[int, int]:
        """Number of blocks of queries and of keys, which the map has to have."""
        high, wide = (-(-length // self.size) for length in (queries, keys))
        if high > len(self.rows) or wide > len(self.rows[0]):
            raise InputError(
                f"the map of {len(self.rows)}×{len(self.rows[0])} blocks of {self.size} is too small for {queries} queries and "
                f"{keys} keys, which need {high}×{wide}."
            )
        return high, wide
