"""A sparse weight in slices of output rows, as many as a register has lanes.

Rows of a slice have about equally many kept weights, and a step of it holds one of each: their values side by side, and
beside them how far each one's input is behind the last one's. What is read of few columns is gathered there. A distance is
one byte; where it is longer, weights of zero are stopped at on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.registers import Vectors

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class RowSlices:
    """Places of the kept weights of one matrix, slice by slice.

    Attributes:
        lanes: rows of a slice.
        outputs: rows of the matrix.
        channels: columns of it.
        starts: first step of each slice, and the end.
        rows: of each slice, -1 behind the last one.
        gaps: (steps, lanes) from the input before, or from the first one; 0 where a row is shorter than its slice.
    """

    lanes: int
    outputs: int
    channels: int
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    gaps: NDArray[np.uint8]

    def bounds(self, parts: int) -> NDArray[np.int64]:
        """First slice of each of several parts with about equally many kept weights, and the end."""
        wanted = self.starts[-1] * np.arange(1, parts) // parts
        return np.array([0, *np.searchsorted(self.starts, wanted), len(self.starts) - 1], np.int64)


def slice_rows(mask: NDArray[np.bool_], matrix: Array, vectors: Vectors) -> tuple[RowSlices, Array]:
    """A mask in slices, and the entries that it keeps: (steps, lanes), zero where there is none.

    Args:
        mask: outputs × inputs.
        matrix: entries of the same size, in any type.
        vectors: of the instruction set that the kernel is made for.
    """
    from iftplan.nn.execution.slices.packing import fill_slices, row_lengths

    (outputs, channels), lanes = mask.shape, vectors.lanes
    kept_rows, kept_columns = np.nonzero(mask)
    lengths = row_lengths(kept_rows, kept_columns, outputs)
    order = np.argsort(-lengths, kind="stable")
    # the first row of a slice is its longest
    starts = np.concatenate([[0], np.cumsum(lengths[order[::lanes]])]).astype(np.int64)
    rows = np.full((len(starts) - 1) * lanes, -1, np.int32)
    rows[:outputs] = order
    gaps = np.zeros((starts[-1], lanes), np.uint8)
    values = np.zeros((starts[-1], lanes), matrix.dtype)
    place = np.empty(outputs, np.int64)
    place[order] = np.arange(outputs)
    fill_slices(kept_rows, kept_columns, matrix, starts, place, gaps, values)
    return RowSlices(lanes, outputs, channels, starts, rows, gaps), values
