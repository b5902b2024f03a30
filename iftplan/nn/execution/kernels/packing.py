"""A mask in the order in which kernels walk over it, compiled by numba: it is done again after every mask update."""

from __future__ import annotations

from typing import Final

import numba
import numpy as np

_NEAR: Final = 256
"""Rows among which like ones are looked for: one step in a hundred is padding then, and sums are up to a tenth less to wait for."""

# no types in the signatures: numba reads those of the arguments


@numba.njit(cache=True, nogil=True)
def count_steps(mask, row_starts, blocks, members, channels, shared):  # type: ignore[no-untyped-def]
    """Number of quads and of steps of a mask: the room that `fill` needs.

    Args:
        mask: outputs × (positions · inputs), channels running fastest.
        row_starts: first output of each row block, and the end.
        blocks: chain, first and last channel, and vectors of the chain, for each block of inputs.
        members: chain, position, and how many vectors further on it reads, in the order of chains.
        channels: inputs of the layer.
        shared: whether the four rows of a quad share their columns.
    """
    quads = steps = 0
    longest = np.empty(mask.shape[0] + 1, np.int64)
    for n in range(len(row_starts) - 1):
        first, last = row_starts[n], row_starts[n + 1]
        for block in range(len(blocks)):
            counts = _counts(mask, first, last, blocks[block], members, channels, longest)
            for count in _longest_of_quads(counts, shared):
                if count:
                    quads += 1
                    steps += count
    return quads, steps


@numba.njit(cache=True, nogil=True)
def fill(  # type: ignore[no-untyped-def]
    mask, row_starts, blocks, members, channels, shared, row_bytes, vector_bytes, panels, counts, rows, offsets, places
):  # fmt: skip
    """Write panels (row block, block, first quad, last quad, first step) and everything in them.

    Blocks are chain, first and last channel, and vectors of the chain; members are chain, position and how many
    vectors further on it reads, in the order of chains.

    Args:
        mask: outputs × (positions · inputs), channels running fastest.
        row_starts: first output of each row block, and the end.
        blocks, members, channels, shared: see `count_steps`.
        row_bytes, vector_bytes: of a row of a tile and of one of its vectors.
        panels: (row blocks · blocks, 5), written.
        counts: (quads,), steps of each, written.
        rows: (quads · 4,), bytes from a row block's outputs to each of the quad's rows, written.
        offsets: distances of inputs in the tile, in units of eight bytes, written; one a step, or four.
        places: (steps · 4,), of each value in the mask, written; -1 stands where a row has fewer values.
    """
    quad = step = 0
    buffer = np.empty(mask.shape[0] + 1, np.int64)
    for n in range(len(row_starts) - 1):
        first, last = row_starts[n], row_starts[n + 1]
        for b in range(len(blocks)):
            panel = panels[n * len(blocks) + b]
            panel[0], panel[1], panel[2], panel[4] = n, b, quad, step
            chain, start, end, vectors = blocks[b]
            kept = _counts(mask, first, last, blocks[b], members, channels, buffer)
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
                    if row < 0:
                        continue
                    at = 0
                    for member in members:
                        if member[0] != chain:
                            continue
                        for c in range(start, end):
                            k = member[1] * channels + c
                            if mask[row, k]:
                                places[4 * (step + at) + r] = row * mask.shape[1] + k
                                offset = ((c - start) * vectors + member[2]) * vector_bytes // 8
                                if not shared:
                                    offsets[4 * (step + at) + r] = offset
                                elif r == 0:
                                    offsets[step + at] = offset
                                at += 1
                quad += 1
                step += longest[q]
            panel[3] = quad


@numba.njit(cache=True, nogil=True)
def _counts(mask, first, last, block, members, channels, out):  # type: ignore[no-untyped-def]
    out[: last - first] = 0
    for member in members:
        if member[0] == block[0]:
            start = member[1] * channels
            for row in range(first, last):
                for k in range(start + block[1], start + block[2]):
                    out[row - first] += mask[row, k]
    return out[: last - first]


@numba.njit(cache=True, nogil=True)
def _order(counts, shared):  # type: ignore[no-untyped-def]
    """Rows of like length side by side, so that quads are hardly padded; those that share columns stay together.

    Like ones are looked for near by: quads then walk through the sums in their order, which caches foresee.
    """
    order = np.arange(len(counts))
    if not shared:
        for start in range(0, len(counts), _NEAR):
            order[start : start + _NEAR] = start + np.argsort(
                -counts[start : start + _NEAR], kind="mergesort"
            )
    return order


@numba.njit(cache=True, nogil=True)
def _longest_of_quads(counts, shared):  # type: ignore[no-untyped-def]
    order = _order(counts, shared)
    longest = np.zeros((len(counts) + 3) // 4, np.int64)
    for i in range(len(counts)):
        longest[i // 4] = max(longest[i // 4], counts[order[i]])
    return longest
