"""A format against activations, tile by tile; compiled by numba, once for each shape of registers.

A kernel is a function of one address, that of a job (`iftplan.nn.execution.kernels.jobs`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numba
import numpy as np
from numba import carray, types

from iftplan.nn.execution.kernels import jobs, transposes
from iftplan.nn.execution.kernels import panels as inner
from iftplan.nn.execution.kernels.jobs import at, job_type, made_of, mine
from iftplan.nn.execution.kernels.panels import correlation, product
from iftplan.nn.execution.kernels.registers import Vectors
from iftplan.nn.execution.kernels.threads import Compiled
from iftplan.nn.execution.kernels.transposes import gather, scatter

JOB: Final = job_type(
    "offsets", "rows", "counts", "panels", "row_starts", "row_blocks", "blocks", "block_count",  # the format
    "starts", "chains", "targets", "depths", "sources", "source_vectors", "there", "tiles",
    "values", "values_apart", "source", "channels", "bias", "target", "outputs",
)  # fmt: skip
"""What a kernel is told. Values of the parts, runs of tiles, lie `values_apart` bytes apart (0: all read the same)."""


@numba.njit(cache=True)
def aligned_room(count, like):  # type: ignore[no-untyped-def]
    """Room for values that begins with a cache line."""
    raw = np.empty(count + 64 // like.itemsize, like.dtype)
    skip = (-raw.ctypes.data % 64) // like.itemsize
    return raw[skip : skip + count]


@numba.njit(cache=True)
def begin(out, bias, start, rows, width):  # type: ignore[no-untyped-def]
    """Set sums to their values before anything is added: zero, or the bias.

    Args:
        out: flat, one row of `width` sums for each output.
        bias: of all outputs; empty for none.
        start: the first row's output.
        rows: how many rows there are; those beyond the last output are left alone.
        width: entries of a row.
    """
    if not len(bias):
        out[: rows * width] = 0
    for m in range(min(rows, len(bias))):
        out[m * width : (m + 1) * width] = bias[start + m]


@lru_cache(maxsize=16)
def kernel(vectors: Vectors, shared: int, correlates: int) -> Compiled:
    """The walk of a format over tiles, as a function of a job's address.

    Args:
        vectors: the shape of registers.
        shared: whether four rows share their columns.
        correlates: 0 for target = matrix × source + bias; 1 for values += ⟨target, source⟩ at every kept weight, where the
            target is a gradient that is read.
    """
    lanes, count, bits, width = vectors.lanes, vectors.count, vectors.bits, vectors.lanes * vectors.count
    row_bytes, vector_bytes, offset_bytes = vectors.row_bytes, vectors.bytes, 2 if shared else 8
    shuffled, size, dtype = int(vectors.shuffled), bits // 8, np.float32 if bits == 32 else np.float64
    version = made_of(inner, jobs, transposes)

    @numba.cfunc(types.void(types.voidptr), cache=True)
    def run(address):  # type: ignore[no-untyped-def]
        job = carray(address, (1,), JOB)[0]
        row_starts = carray(at(job.row_starts), (job.row_blocks + 1,), np.int64)
        blocks = carray(at(job.blocks), (job.block_count, 4), np.int64)
        panels = carray(at(job.panels), (job.row_blocks * job.block_count, 5), np.int64)
        starts = carray(at(job.starts), (job.chains,), np.int64)
        depths = carray(at(job.depths), (job.tiles,), np.int64)
        there = carray(at(job.there), (job.tiles, job.chains), np.bool_)
        bias = carray(at(job.bias), (job.outputs if job.bias else 0,), dtype)
        first, apart = mine(job)
        deepest = ((blocks[:, 2] - blocks[:, 1] + lanes) * blocks[:, 3]).max() * lanes
        highest = (row_starts[1:] - row_starts[:-1]).max() + lanes
        absent = np.zeros(2 * lanes, dtype)  # zeros to read, then room for what is written nowhere
        tile, out = aligned_room(deepest, absent), aligned_room(highest * width, absent)
        if version < 0:  # closed over, for numba's cache
            return
        for part in range(first, job.parts, apart):
            values = job.values + part * job.values_apart
            for t in range(job.tiles * part // job.parts, job.tiles * (part + 1) // job.parts):
                depth, pixels = depths[t], job.targets + 4 * width * t
                # asked for here: numba frees an array after its last use, and an address is none
                zeros, nowhere = absent.ctypes.data, absent.ctypes.data + size * lanes
                held = -1
                number = 0
                for n in range(job.row_blocks):
                    start, height = row_starts[n], row_starts[n + 1] - row_starts[n]
                    if correlates:
                        gather(
                            lanes, bits, job.target, job.outputs, pixels, depth, start, height, out.ctypes.data,
                            row_bytes, zeros,
                        )  # fmt: skip
                        out[height * width : (height + 1) * width] = 0
                    else:
                        begin(out, bias, start, height, width)
                    for _ in range(job.block_count):
                        _, block, quad, quads, step = panels[number]
                        chain, channel, end, wide = blocks[block]
                        number += 1
                        if quad == quads or not there[t, chain]:
                            continue
                        if held != block:
                            held = block
                            gather(
                                lanes, bits, job.source, job.channels,
                                job.sources + 4 * lanes * (t * job.source_vectors + starts[chain]), wide - count + depth,
                                channel, end - channel, tile.ctypes.data, wide * vector_bytes, zeros,
                            )  # fmt: skip
                        its_values, its_offsets = values + 4 * size * step, job.offsets + offset_bytes * step
                        if correlates:
                            correlation(
                                lanes, count, bits, shared, depth, its_values, its_offsets, job.rows, job.counts, quad,
                                quads, tile.ctypes.data, out.ctypes.data,
                            )  # fmt: skip
                        else:
                            product(
                                lanes, count, bits, shared, shuffled, depth, its_values, its_offsets, job.rows, job.counts, quad,
                                quads, tile.ctypes.data, out.ctypes.data,
                            )  # fmt: skip
                    if not correlates:
                        scatter(
                            lanes, bits, job.target, job.outputs, pixels, depth, start, height, out.ctypes.data,
                            row_bytes, nowhere,
                        )  # fmt: skip

    return Compiled(run)
