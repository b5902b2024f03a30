"""A sparse weight in slices of output rows, as many as a register has lanes.

Rows of a slice have about equally many kept weights, and a step of it holds one of each: their values side by side, and
beside them the numbers of their inputs. What is read of few columns is gathered by these numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.registers import Vectors

Array = NDArray[Any]

INPUTS: Final = 65_536
"""Most inputs that 16 bits can number."""


@dataclass(frozen=True, slots=True, eq=False)
class RowSlices:
    """Places of the kept weights of one matrix, slice by slice.

    Attributes:
        lanes: rows of a slice.
        outputs: rows of the matrix.
        channels: columns of it.
        starts: first step of each slice, and the end.
        rows: of each slice, -1 behind the last one.
        inputs: (steps, lanes) of each value; 0 where a row has fewer than its slice.
    """

    lanes: int
    outputs: int
    channels: int
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    inputs: NDArray[np.uint16]

    def bounds(self, parts: int) -> NDArray[np.int64]:
        """First slice of each of several parts with about equally many kept weights, and the end."""
        wanted = self.starts[-1] * np.arange(1, parts) // parts
        return np.array([0, *np.searchsorted(self.starts, wanted), len(self.starts) - 1], np.int64)


def slice_rows(mask: NDArray[np.bool_], matrix: Array, vectors: Vectors) -> tuple[RowSlices, Array]:
    """A mask in slices, and the entries that it keeps: (steps, lanes), zero where there is none.

    Args:
        mask: outputs × inputs, of which there are 65 536 at most.
        matrix: entries of the same size, in any type.
        vectors: of the instruction set that the kernel is made for.
    """
    from iftplan.nn.execution.slices.packing import fill_slices

    (outputs, channels), lanes = mask.shape, vectors.lanes
    counts = np.count_nonzero(mask, axis=1)
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    # the first row of a slice is its longest
    starts = np.concatenate([[0], np.cumsum(counts[order[::lanes]])]).astype(np.int64)
    rows = np.full((len(starts) - 1) * lanes, -1, np.int32)
    rows[:outputs] = order
    inputs = np.zeros((starts[-1], lanes), np.uint16)
    values = np.zeros((starts[-1], lanes), matrix.dtype)
    fill_slices(mask, matrix, starts, rows, inputs, values)
    return RowSlices(lanes, outputs, channels, starts, rows, inputs), values
