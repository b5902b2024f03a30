"""Bands around the diagonal: causal attention, and windows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


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

    def capped(self, most: int, queries: int, keys: int) -> int:
        """Number of pairs in the band where no query keeps more than `most` of its keys.

        Args:
            most: keys that a query keeps of those that it sees.
            queries: number of queries.
            keys: number of keys.
        """
        # how many keys a query sees is linear in its position between these
        turns = (
            *(() if self.ahead is None else (keys - self.ahead,)),
            *(() if self.behind is None else (self.behind - 1, keys + self.behind - 1)),
        )
        ends = sorted({0, queries, *(min(max(turn, 0), queries) for turn in turns)})
        return sum(self._capped(most, start, end, keys) for start, end in pairwise(ends))

    def _capped(self, most: int, start: int, end: int, keys: int) -> int:
        """The same for queries from `start` to before `end`, along which the number of keys is linear."""
        few, many = sorted(self._seen(query, keys) for query in (start, end - 1))
        if most >= many or most <= few:
            return (end - start) * min(most, few) if most <= few else (end - start) * (few + many) // 2
        below = most - few  # queries that see fewer, one key more from each to the next
        return below * (few + most - 1) // 2 + (end - start - below) * most

    def _seen(self, query: int, keys: int) -> int:
        """Number of keys that a query sees."""
        last = keys if self.ahead is None else min(keys, query + self.ahead)
        return max(0, last - (0 if self.behind is None else max(0, query - self.behind + 1)))

    def pages(self, page: int, queries: int, keys: int) -> int:
        """Number of pages of neighbouring keys that queries see a key of, all queries together.

        Args:
            page: keys of a page.
            queries: number of queries.
            keys: number of keys.
        """
        seeing = queries if self.behind is None else min(queries, keys + self.behind - 1)
        ahead = keys if self.ahead is None else min(self.ahead, keys)
        rising = min(seeing, keys - ahead)  # queries whose last key is not the last of all
        last = (
            _floors(rising + ahead - 1, page)
            - _floors(ahead - 1, page)
            + (seeing - rising) * ((keys - 1) // page)
        )
        first = 0 if self.behind is None else _floors(max(0, seeing - self.behind + 1), page)
        return last - first + seeing

    def coarser(self, step: int) -> Band:
        """Band of the same reach in steps of so many positions."""
        return Band(*(None if reach is None else -(-reach // step) for reach in (self.behind, self.ahead)))


def _least(first: int | None, second: int | None) -> int | None:
    return min((reach for reach in (first, second) if reach is not None), default=None)


def _floors(steps: int, page: int) -> int:
    """Sum of t // page over 0 ≤ t < steps."""
    whole, rest = divmod(steps, page)
    return page * (whole * (whole - 1) // 2) + whole * rest


def _before(queries: int, keys: int, reach: int) -> int:
    """Pairs whose key is less than `reach` after its query: a sum of min(i + reach, keys) over all queries i."""
    return _staircase(queries + reach, keys) - _staircase(reach, keys)


def _staircase(steps: int, most: int) -> int:
    """Sum of min(t, most) over 0 ≤ t < steps."""
    rising = min(max(steps, 0), most + 1)
    return rising * (rising - 1) // 2 + max(0, steps - rising) * most
