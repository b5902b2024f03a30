"""A format against activations, tile by tile; compiled by numba, once for each shape of registers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numba
import numpy as np

from iftplan.nn.execution import panels as inner
from iftplan.nn.execution import transposes
from iftplan.nn.execution.panels import correlation, product
from iftplan.nn.execution.transposes import gather, scatter
from iftplan.nn.execution.vectors import Vectors


@numba.njit(cache=True, nogil=True)
def aligned(count, like):  # type: ignore[no-untyped-def]
    """Room for values that begins with a cache line."""
    raw = np.empty(count + 64 // like.itemsize, like.dtype)
    skip = (-raw.ctypes.data % 64) // like.itemsize
    return raw[skip : skip + count]


@numba.njit(cache=True, nogil=True)
def begin(out, bias, start, rows, width):  # type: ignore[no-untyped-def]
    """Sums before anything is added: zero, or the bias."""
    if not len(bias):
        out[: rows * width] = 0
    for m in range(min(rows, len(bias))):
        out[m * width : (m + 1) * width] = bias[start + m]


@lru_cache(maxsize=1)
def made_of() -> int:
    """A checksum of the modules that emit inner loops: numba's cache asks only whether this file is the same."""
    return crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in (inner, transposes)))


@lru_cache(maxsize=16)
def kernel(vectors: Vectors, shared: int, correlates: int) -> Callable[..., None]:
    """The walk of a format over the tiles first..last.

    Args:
        vectors: the shape of registers.
        shared: whether four rows share their columns.
        correlates: 0 for target = matrix × source + bias; 1 for values += ⟨target, source⟩ at every kept weight, where the
            target is a gradient that is read.
    """
    lanes, count, bits, width = vectors.lanes, vectors.count, vectors.bits, vectors.lanes * vectors.count
    row_bytes, vector_bytes, offset_bytes = vectors.row_bytes, vectors.bytes, 2 if shared else 8
    loops = made_of()

    @numba.njit(cache=True, nogil=True)
    def run(  # type: ignore[no-untyped-def]
        values, offsets, rows, counts, panels, row_starts, blocks, starts, targets, depths, sources, there,
        source, channels, bias, target, outputs, first, last,
    ):  # fmt: skip
        assert loops >= 0  # what a kernel closes over is a part of its name in numba's cache
        deepest = ((blocks[:, 2] - blocks[:, 1] + lanes) * blocks[:, 3]).max() * lanes
        highest = (row_starts[1:] - row_starts[:-1]).max() + lanes
        tile, out = aligned(deepest, values), aligned(highest * width, values)
        absent = np.zeros(2 * lanes, values.dtype)  # zeros to read, then room for what is written nowhere
        nowhere = absent.ctypes.data + values.itemsize * lanes
        for t in range(first, last):
            depth, pixels = depths[t], targets[t].ctypes.data
            held = -1
            number = 0
            for n in range(len(row_starts) - 1):
                start, height = row_starts[n], row_starts[n + 1] - row_starts[n]
                if correlates:
                    gather(
                        lanes, bits, target.ctypes.data, outputs, pixels, depth, start, height, out.ctypes.data,
                        row_bytes, absent.ctypes.data,
                    )  # fmt: skip
                    out[height * width : (height + 1) * width] = 0
                else:
                    begin(out, bias, start, height, width)
                for _ in range(len(blocks)):
                    _, block, quad, quads, step = panels[number]
                    chain, channel, end, wide = blocks[block]
                    number += 1
                    if quad == quads or not there[t, chain]:
                        continue
                    if held != block:
                        held = block
                        gather(
                            lanes, bits, source.ctypes.data, channels, sources[t, starts[chain] :].ctypes.data,
                            wide - count + depth, channel, end - channel, tile.ctypes.data, wide * vector_bytes,
                            absent.ctypes.data,
                        )  # fmt: skip
                    its_values = values.ctypes.data + 4 * values.itemsize * step
                    its_offsets = offsets.ctypes.data + offset_bytes * step
                    if correlates:
                        correlation(
                            lanes, count, bits, shared, depth, its_values, its_offsets, rows.ctypes.data,
                            counts.ctypes.data, quad, quads, tile.ctypes.data, out.ctypes.data,
                        )  # fmt: skip
                    else:
                        product(
                            lanes, count, bits, shared, depth, its_values, its_offsets, rows.ctypes.data,
                            counts.ctypes.data, quad, quads, tile.ctypes.data, out.ctypes.data,
                        )  # fmt: skip
                if not correlates:
                    scatter(
                        lanes, bits, target.ctypes.data, outputs, pixels, depth, start, height, out.ctypes.data,
                        row_bytes, nowhere,
                    )  # fmt: skip

    return run  # type: ignore[no-any-return]
