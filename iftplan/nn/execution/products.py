"""Products of packed weights and activations in flat arrays, on as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.formats import Format
from iftplan.nn.execution.tiles import tiles_of
from iftplan.nn.execution.windows import Windows

Array = NDArray[Any]
Part = TypeVar("Part")


def product(
    packed: Format, values: Array, source: Array, windows: Windows, bias: Array, threads: int = 1
) -> Array:
    """The matrix times the source's windows, plus the bias.

    Args:
        packed: the mask.
        values: its weights, in its order.
        source: (images, height, width, channels), flat.
        windows: how targets read sources.
        bias: one for each output, or empty.
        threads: how many.

    Returns:
        (images, height, width, outputs), flat.
    """
    target = np.empty(windows.columns * packed.outputs, values.dtype)
    work, tiles = _work(packed, source, windows, bias, target, correlates=0)
    _spread(lambda first, last: work(values, first, last), tiles, threads)
    return target


def correlation(packed: Format, source: Array, gradient: Array, windows: Windows, threads: int = 1) -> Array:
    """The gradient of the kept weights, in the format's order.

    Args:
        packed: the mask.
        source: what the product read.
        gradient: of what it wrote.
        windows: how targets read sources.
        threads: how many.
    """
    none = np.empty(0, source.dtype)
    work, tiles = _work(packed, source, windows, none, gradient, correlates=1)

    def part(first: int, last: int) -> Array:
        sums = np.zeros(packed.slots, source.dtype)
        work(sums, first, last)
        return sums

    parts = _spread(part, tiles, threads)
    return sum(parts[1:], parts[0])  # in the order of tiles, whoever was first: the same bits each time


def _work(
    packed: Format, source: Array, windows: Windows, bias: Array, target: Array, correlates: int
) -> tuple[Callable[[Array, int, int], None], int]:
    """A kernel with all it needs but values and the tiles that it goes over, and how many those are."""
    from iftplan.nn.execution.kernels import kernel

    shape = packed.vectors
    tiles = tiles_of(windows, packed.chains, shape.lanes, shape.count)
    run = kernel(shape, int(packed.shared), correlates)
    walk = packed.offsets, packed.rows, packed.counts, packed.panels, packed.row_starts, packed.blocks
    tables = packed.chains.vectors(shape.count), tiles.targets, tiles.depths, tiles.sources, tiles.there
    rest = source, packed.channels, bias, target, packed.outputs
    return lambda values, first, last: run(values, *walk, *tables, *rest, first, last), len(tiles)


def _spread(work: Callable[[int, int], Part], tiles: int, threads: int) -> list[Part]:
    """Tiles in equal runs to the threads; kernels let go of the interpreter while they run."""
    parts = max(1, min(threads, tiles))
    runs = list(pairwise(tiles * i // parts for i in range(parts + 1)))
    if parts == 1:
        return [work(*runs[0])]
    with ThreadPoolExecutor(parts) as pool:
        return [done.result() for done in [pool.submit(work, *run) for run in runs]]
