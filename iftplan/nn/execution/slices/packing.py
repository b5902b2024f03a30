"""A mask in the order of slices, compiled by numba."""

from __future__ import annotations

import numba


@numba.njit(cache=True, nogil=True)
def fill_slices(mask, matrix, starts, rows, inputs, values):  # type: ignore[no-untyped-def]
    """Write the inputs and the values of every slice.

    Args:
        mask: outputs × inputs.
        matrix: of the same size.
        starts: first step of each slice, and the end.
        rows: of each slice; negative ones are left out.
        inputs: (steps, lanes), written.
        values: (steps, lanes), written.
    """
    lanes = inputs.shape[1]
    for i in range(len(rows)):
        row, step, lane = rows[i], starts[i // lanes], i % lanes
        if row < 0:
            continue
        for column in range(mask.shape[1]):
            if mask[row, column]:
                inputs[step, lane] = column
                values[step, lane] = matrix[row, column]
                step += 1
