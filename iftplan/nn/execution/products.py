"""Products of packed weights and activations in flat arrays, on as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.formats import Format
from iftplan.nn.execution.windows import Windows, order_of

Array = NDArray[Any]


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
    from iftplan.nn.execution.kernels import product_kernel

    shape = packed.vectors
    run = product_kernel(shape.lanes, shape.count, shape.bits, int(packed.shared))
    order = order_of(windows, shape.tile)
    target = np.empty(windows.columns * packed.outputs, values.dtype)
    arguments = (
        values, packed.offsets, packed.rows, packed.counts, packed.panels, packed.row_starts, packed.blocks,
        source, packed.channels, order, windows.numbers(), bias, target, packed.outputs,
    )  # fmt: skip
    _spread(lambda first, last: run(*arguments, first, last), len(order) // shape.tile, threads)
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
    from iftplan.nn.execution.kernels import correlation_kernel

    shape = packed.vectors
    run = correlation_kernel(shape.lanes, shape.count, shape.bits, int(packed.shared))
    order = order_of(windows, shape.tile)
    parts: list[Array] = []

    def part(first: int, last: int) -> None:
        sums = np.zeros(packed.slots, source.dtype)
        run(
            sums, packed.offsets, packed.rows, packed.counts, packed.panels, packed.row_starts, packed.blocks,
            source, packed.channels, order, windows.numbers(), gradient, packed.outputs, first, last,
        )  # fmt: skip
        parts.append(sums)

    _spread(part, len(order) // shape.tile, threads)
    return sum(parts[1:], parts[0])


def _spread(work: Callable[[int, int], None], tiles: int, threads: int) -> None:
    """Tiles in equal runs to the threads; kernels let go of the interpreter while they run."""
    parts = max(1, min(threads, tiles))
    cuts = [tiles * i // parts for i in range(parts + 1)]
    if parts == 1:
        work(*cuts)
        return
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(work, a, b) for a, b in pairwise(cuts)]:
            done.result()
