"""A mask in the order of slices, compiled by numba."""

from __future__ import annotations

import numba
import numpy as np

FARTHEST = 255
"""Inputs that one byte can pass over."""


@numba.njit(cache=True, nogil=True)
def row_lengths(rows, columns, outputs):  # type: ignore[no-untyped-def]
    """Steps of every row: its kept weights, and stops where they are farther apart than a byte can tell.

    Args:
        rows: of the kept weights, ascending.
        columns: of them, ascending within a row.
        outputs: number of rows.
    """
    lengths = np.zeros(outputs, np.int64)
    before, last = -1, 0
    for i in range(len(rows)):
        if rows[i] != before:
            before, last = rows[i], 0
        lengths[before] += 1 + max(columns[i] - last - 1, 0) // FARTHEST
        last = columns[i]
    return lengths


@numba.njit(cache=True, nogil=True)
def fill_slices(rows, columns, matrix, starts, place, gaps, values):  # type: ignore[no-untyped-def]
    """Write the gaps and the values of every slice.

    Args:
        rows: of the kept weights, ascending.
        columns: of them, ascending within a row.
        matrix: outputs × inputs.
        starts: first step of each slice, and the end.
        place: of each row among those of all slices.
        gaps: (steps, lanes), written; zeros before.
        values: (steps, lanes), written; zeros before.
    """
    lanes = gaps.shape[1]
    before, last, step = -1, 0, 0
    for i in range(len(rows)):
        if rows[i] != before:
            before, last = rows[i], 0
            step, lane = starts[place[before] // lanes], place[before] % lanes
        gap = columns[i] - last
        while gap > FARTHEST:
            gaps[step, lane] = FARTHEST
            gap -= FARTHEST
            step += 1
        gaps[step, lane] = gap
        values[step, lane] = matrix[rows[i], columns[i]]
        last = columns[i]
        step += 1
