"""Token files one after another as one long row, each mapped from its file and none of them read as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.integer]]


@dataclass(frozen=True, slots=True, eq=False)
class JoinedRows:
    """A part of several rows that are thought of as one.

    Attributes:
        parts: the rows.
        starts: place of the first token of each, and one past the last of all.
        begin: first place of the part.
        end: one past its last.
    """

    parts: tuple[Numbers, ...]
    starts: Numbers
    begin: int
    end: int

    @classmethod
    def of(cls, parts: Sequence[Numbers]) -> JoinedRows:
        """All of these rows."""
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(tuple(parts), starts, 0, int(starts[-1]))

    def __len__(self) -> int:
        return self.end - self.begin

    @overload
    def __getitem__(self, places: slice) -> JoinedRows: ...
    @overload
    def __getitem__(self, places: Numbers) -> Numbers: ...
    def __getitem__(self, places: slice | Numbers) -> JoinedRows | Numbers:
        if isinstance(places, slice):
            first, last, _ = places.indices(len(self))
            return JoinedRows(self.parts, self.starts, self.begin + first, self.begin + max(first, last))
        wanted = places + self.begin
        rows = np.searchsorted(self.starts, wanted, side="right") - 1
        found = np.empty(places.shape, dtype=np.int64)
        for row in np.unique(rows):
            here = rows == row
            found[here] = self.parts[row][wanted[here] - self.starts[row]]
        return found

    def max(self) -> int:
        """The largest token of all rows."""
        return max(int(part.max()) for part in self.parts if len(part))
