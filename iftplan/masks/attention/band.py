"""Bands around the diagonal: causal attention, and windows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """Keys within a distance of their query.

    Attributes:
        behind: keys at or before the query, itself included; None for all of them.
        ahead: keys at or after the query, itself included; None for all of them.
    """

    behind: int | None = None
    ahead: int | None = None

    def __and__(self, other: Band) -> Band:
        """Band of the keys that lie in both."""
        return Band(_least(self.behind, other.behind), _least(self.ahead, other.ahead))

    def parts(self) -> list[str]:
        """Notations of the band: that of a window, and of causal attention."""
        window = [] if self.behind is None else [f"window:{self.behind}"]
        return [*window, *(["causal"] if self.ahead == 1 and self.behind != 1 else [])]

    def keeps(self, query: int, key: int) -> bool:
        """Whether a query can see a key.

        Args:
            query: position of the query.
            key: position of the key.
        """
        return (self.behind is None or query - key < self.behind) and (
            self.ahead is None or key - query < self.ahead
        )

    def row(self, query: int, keys: int) -> range:
        """Keys that a query sees.

        Args:
            query: position of the query.
            keys: number of keys.
        """
        first = 0 if self.behind is None else max(0, query - self.behind + 1)
        return range(first, keys if self.ahead is None else min(keys, query + self.ahead))

    def pairs(self, queries: int, keys: int, offset: int = 0) -> int:
        """Number of pairs in the band.

        Args:
            queries: number of queries.
            keys: number of keys.
            offset: how much further on the first key is than the first query.
        """
        ahead = queries * keys if self.ahead is None else _before(queries, keys, self.ahead - offset)
        behind = 0 if self.behind is None else _before(queries, keys, 1 - self.behind - offset)
        return ahead - behind

    def coarser(self, step: int) -> Band:
        """Band of the same reach in steps of so many positions."""
        return Band(*(None if reach is None else -(-reach // step) for reach in (self.behind, self.ahead)))


def _least(first: int | None, second: int | None) -> int | None:
    return min((reach for reach in (first, second) if reach is not None), default=None)


def _before(queries: int, keys: int, reach: int) -> int:
    """Pairs whose key is less than `reach` after its query: a sum of min(i + reach, keys) over all queries i."""
    return _staircase(queries + reach, keys) - _staircase(reach, keys)


def _staircase(steps: int, most: int) -> int:
    """Sum of min(t, most) over 0 ≤ t < steps."""
    rising = min(max(steps, 0), most + 1)
    return rising * (rising - 1) // 2 + max(0, steps - rising) * most
