"""A mask in the order in which kernels walk over it, compiled by numba: it is done again after every mask update."""

from __future__ import annotations

import numba
import numpy as np

# no types in the signatures: numba reads those of the arguments


@numba.njit(cache=True, nogil=True)
def count_steps(mask, row_starts, blocks, shared):  # type: ignore[no-untyped-def]
    """Quads and steps of a mask: what `fill` needs room for."""
    quads = steps = 0
    longest = np.empty(mask.shape[0] + 1, np.int64)
    for n in range(len(row_starts) - 1):
        first, last = row_starts[n], row_starts[n + 1]
        for block in range(len(blocks)):
            counts = _counts(mask, first, last, blocks[block, 1], blocks[block, 2], shared, longest)
            _order(counts, shared)
            for count in _longest_of_quads(counts, shared):
                if count:
                    quads += 1
                    steps += count
    return quads, steps


@numba.njit(cache=True, nogil=True)
def fill(mask, row_starts, blocks, shared, row_bytes, panels, counts, rows, offsets, places):  # type: ignore[no-untyped-def]
    """Write panels (row block, block, first quad, last quad, first step) and everything in them."""
    quad = step = 0
    buffer = np.empty(mask.shape[0] + 1, np.int64)
    for n in range(len(row_starts) - 1):
        first, last = row_starts[n], row_starts[n + 1]
        for block in range(len(blocks)):
            panel = panels[n * len(blocks) + block]
            panel[0], panel[1], panel[2], panel[4] = n, block, quad, step
            start, end = blocks[block, 1], blocks[block, 2]
            kept = _counts(mask, first, last, start, end, shared, buffer)
            order = _order(kept, shared)
            longest = _longest_of_quads(kept, shared)
            for q in range(len(longest)):
                if longest[q] == 0:
                    continue
                counts[quad] = longest[q]
                for r in range(4):
                    i = 4 * q + r
                    row = first + order[i] if i < len(order) else -1
                    # the row behind the last takes what is computed for rows that are not there
                    rows[4 * quad + r] = (row - first if row >= 0 else last - first) * row_bytes
                    at = 0
                    if row >= 0:
                        for k in range(start, end):
                            if mask[row, k]:
                                places[4 * (step + at) + r] = row * mask.shape[1] + k
                                if not shared:
                                    offsets[4 * (step + at) + r] = (k - start) * (row_bytes // 8)
                                elif r == 0:
                                    offsets[step + at] = (k - start) * (row_bytes // 8)
                                at += 1
                quad += 1
                step += longest[q]
            panel[3] = quad


@numba.njit(cache=True, nogil=True)
def _counts(mask, first, last, start, end, shared, out):  # type: ignore[no-untyped-def]
    for row in range(first, last):
        count = 0
        for k in range(start, end):
            count += mask[row, k]
        out[row - first] = count
    return out[: last - first]


@numba.njit(cache=True, nogil=True)
def _order(counts, shared):  # type: ignore[no-untyped-def]
    """Rows of like length side by side, so that quads are hardly padded; those that share columns stay together."""
    if shared:
        return np.arange(len(counts))
    return np.argsort(-counts, kind="mergesort")


@numba.njit(cache=True, nogil=True)
def _longest_of_quads(counts, shared):  # type: ignore[no-untyped-def]
    order = _order(counts, shared)
    longest = np.zeros((len(counts) + 3) // 4, np.int64)
    for i in range(len(counts)):
        longest[i // 4] = max(longest[i // 4], counts[order[i]])
    return longest


@numba.njit(cache=True, nogil=True)
def take(weights, places, values):  # type: ignore[no-untyped-def]
    """Weights into the kernels' order; zeros where a quad is padded."""
    for i in range(len(places)):
        place = places[i]
        values[i] = weights[place] if place >= 0 else 0


@numba.njit(cache=True, nogil=True)
def put(values, places, weights):  # type: ignore[no-untyped-def]
    """Values in the kernels' order back to where they belong."""
    for i in range(len(places)):
        if places[i] >= 0:
            weights[places[i]] = values[i]


@numba.njit(cache=True, nogil=True)
def put_rows(values, starts, columns, slots, inputs, weights):  # type: ignore[no-untyped-def]
    """As `put`, and zeros elsewhere: a row is cleared and filled while it is in the cache."""
    for row in range(len(starts) - 1):
        line = weights[row * inputs : (row + 1) * inputs]
        line[:] = 0
        for i in range(starts[row], starts[row + 1]):
            line[columns[i]] = values[slots[i]]
