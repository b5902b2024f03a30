"""A format against activations, tile by tile; compiled by numba, once for each shape of registers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from iftplan.nn.execution.panels import correlation, product
from iftplan.nn.execution.transposes import gather, scatter


@numba.njit(cache=True, nogil=True)
def aligned(count, like):  # type: ignore[no-untyped-def]
    """Room for values that begins with a cache line."""
    raw = np.empty(count + 64 // like.itemsize, like.dtype)
    skip = (-raw.ctypes.data % 64) // like.itemsize
    return raw[skip : skip + count]


@numba.njit(cache=True, nogil=True)
def find(order, start, numbers, channels, places, there):  # type: ignore[no-untyped-def]
    """For one tile: the element at which each column begins at each position (-1: none), and where any is."""
    source_h, source_w, target_h, target_w, kernel_h, kernel_w = numbers[:6]
    scale_h, scale_w, step_h, step_w, shift_h, shift_w, over_h, over_w = numbers[6:]
    for j in range(places.shape[1]):
        pixel = order[start + j]
        image, rest = divmod(pixel, target_h * target_w)
        row, column = divmod(rest, target_w)
        for r in range(kernel_h):
            y = row * scale_h + r * step_h + shift_h
            for s in range(kernel_w):
                x = column * scale_w + s * step_w + shift_w
                inside = 0 <= y < source_h * over_h and 0 <= x < source_w * over_w
                if pixel >= 0 and inside and y % over_h == 0 and x % over_w == 0:
                    at = (image * source_h + y // over_h) * source_w + x // over_w
                    places[r * kernel_w + s, j] = at * channels
                    there[r * kernel_w + s] = True
                else:
                    places[r * kernel_w + s, j] = -1


@lru_cache(maxsize=16)
def product_kernel(lanes: int, count: int, bits: int, shared: int) -> Callable[..., None]:
    """Target = matrix × source + bias, for the tiles first..last."""
    width = lanes * count

    @numba.njit(cache=True, nogil=True)
    def run(  # type: ignore[no-untyped-def]
        values, offsets, rows, counts, panels, row_starts, blocks, source, channels, order, numbers, bias, target,
        outputs, first, last,
    ):  # fmt: skip
        positions = numbers[4] * numbers[5]
        deepest = (blocks[:, 2] - blocks[:, 1]).max() + lanes
        highest = (row_starts[1:] - row_starts[:-1]).max() + lanes
        tile, out = aligned(deepest * width, values), aligned(highest * width, values)
        absent = np.zeros(2 * lanes, values.dtype)  # zeros to read, then room for what is written nowhere
        places, there = np.empty((positions, width), np.int64), np.empty(positions, np.bool_)
        targets = np.empty(width, np.int64)
        size = values.itemsize
        for t in range(first, last):
            there[:] = False
            find(order, t * width, numbers, channels, places, there)
            for j in range(width):
                pixel = order[t * width + j]
                targets[j] = pixel * outputs if pixel >= 0 else -1
            held = -1
            number = 0
            for n in range(len(row_starts) - 1):
                start, end = row_starts[n], row_starts[n + 1]
                if len(bias):
                    for m in range(end - start):
                        out[m * width : (m + 1) * width] = bias[start + m]
                else:
                    out[: (end - start) * width] = 0
                for _ in range(len(blocks)):
                    block, quad, quads, step = (
                        panels[number, 1], panels[number, 2], panels[number, 3], panels[number, 4],
                    )  # fmt: skip
                    number += 1
                    position = blocks[block, 0]
                    if quad == quads or not there[position]:
                        continue
                    if held != block:
                        held = block
                        begin = blocks[block, 1] - position * channels
                        gather(
                            lanes, count, bits, source.ctypes.data, places.ctypes.data + 8 * width * position,
                            begin, blocks[block, 2] - blocks[block, 1], tile.ctypes.data, absent.ctypes.data,
                        )  # fmt: skip
                    product(
                        lanes, count, bits, shared, values.ctypes.data + 4 * size * step,
                        offsets.ctypes.data + (2 if shared else 8) * step, rows.ctypes.data, counts.ctypes.data,
                        quad, quads, tile.ctypes.data, out.ctypes.data,
                    )  # fmt: skip
                scatter(
                    lanes, count, bits, out.ctypes.data, end - start, targets.ctypes.data, start,
                    target.ctypes.data, absent.ctypes.data + size * lanes,
                )  # fmt: skip

    return run  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def correlation_kernel(lanes: int, count: int, bits: int, shared: int) -> Callable[..., None]:
    """Sums += ⟨gradient, source⟩ at every kept weight, for the tiles first..last."""
    width = lanes * count

    @numba.njit(cache=True, nogil=True)
    def run(  # type: ignore[no-untyped-def]
        sums, offsets, rows, counts, panels, row_starts, blocks, source, channels, order, numbers, gradient,
        outputs, first, last,
    ):  # fmt: skip
        positions = numbers[4] * numbers[5]
        deepest = (blocks[:, 2] - blocks[:, 1]).max() + lanes
        highest = (row_starts[1:] - row_starts[:-1]).max() + lanes
        tile, out = aligned(deepest * width, sums), aligned(highest * width, sums)
        absent = np.zeros(lanes, sums.dtype)
        places, there = np.empty((positions, width), np.int64), np.empty(positions, np.bool_)
        targets = np.empty(width, np.int64)
        size = sums.itemsize
        for t in range(first, last):
            there[:] = False
            find(order, t * width, numbers, channels, places, there)
            for j in range(width):
                pixel = order[t * width + j]
                targets[j] = pixel * outputs if pixel >= 0 else -1
            held = -1
            number = 0
            for n in range(len(row_starts) - 1):
                start, end = row_starts[n], row_starts[n + 1]
                gather(
                    lanes, count, bits, gradient.ctypes.data, targets.ctypes.data, start, end - start,
                    out.ctypes.data, absent.ctypes.data,
                )  # fmt: skip
                out[(end - start) * width : (end - start + 1) * width] = 0
                for _ in range(len(blocks)):
                    block, quad, quads, step = (
                        panels[number, 1], panels[number, 2], panels[number, 3], panels[number, 4],
                    )  # fmt: skip
                    number += 1
                    position = blocks[block, 0]
                    if quad == quads or not there[position]:
                        continue
                    if held != block:
                        held = block
                        begin = blocks[block, 1] - position * channels
                        gather(
                            lanes, count, bits, source.ctypes.data, places.ctypes.data + 8 * width * position,
                            begin, blocks[block, 2] - blocks[block, 1], tile.ctypes.data, absent.ctypes.data,
                        )  # fmt: skip
                    correlation(
                        lanes, count, bits, shared, sums.ctypes.data + 4 * size * step,
                        offsets.ctypes.data + (2 if shared else 8) * step, rows.ctypes.data, counts.ctypes.data,
                        quad, quads, tile.ctypes.data, out.ctypes.data,
                    )  # fmt: skip

    return run  # type: ignore[no-any-return]
