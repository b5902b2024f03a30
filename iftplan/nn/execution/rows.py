"""Kept values back in a dense matrix, row by row: gradients that a dense weight is owed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.formats import Format


@dataclass(slots=True, eq=False)
class Rows:
    """Where the values of a format belong, in the order of memory.

    Attributes:
        starts: first value of each row, and the end.
        columns: of each value.
        slots: of each value in the format.
        inputs: columns of the matrix.
    """

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    slots: NDArray[np.int32]
    inputs: int
    _room: NDArray[Any] | None = field(default=None, repr=False)
    _lent: ref[NDArray[Any]] | None = field(default=None, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy has room of its own
        return Rows, (self.starts, self.columns, self.slots, self.inputs)

    def matrix(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values in the format's order as the flat matrix, zero elsewhere.

        Its memory is used again as soon as nothing holds the matrix any longer: pages of a fresh one would cost more
        than the values. Every entry is written, as others may have changed what they were lent.
        """
        from iftplan.nn.execution.packing import put_rows

        held = self._lent() if self._lent is not None else None
        if held is not None or self._room is None or self._room.dtype != values.dtype:
            self._room = np.empty((len(self.starts) - 1) * self.inputs, values.dtype)
        matrix = self._room.view()
        self._lent = ref(matrix)
        put_rows(values, self.starts, self.columns, self.slots, self.inputs, matrix)
        return matrix


def rows_of(mask: NDArray[np.bool_], packed: Format) -> Rows:
    """The rows of a mask and its format."""
    held = np.flatnonzero(packed.places >= 0)
    slots = np.empty(mask.size, np.int32)
    slots[packed.places[held]] = held
    flat = np.flatnonzero(mask)
    starts = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int64)
    inputs = mask.shape[1]
    return Rows(starts, (flat % inputs).astype(np.int32), slots[flat], inputs)
