"""Products of packed weights and activations in flat arrays, on as many threads as torch uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.formats import MaskFormat
from iftplan.nn.execution.kernels.threads import run_job
from iftplan.nn.execution.kernels.tiles import tiles_of
from iftplan.nn.execution.kernels.windows import ConvolutionWindows

Array = NDArray[Any]


def product(
    packed: MaskFormat,
    values: Array,
    source: Array,
    windows: ConvolutionWindows,
    bias: Array,
    threads: int = 1,
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
    run_into(target, packed, values, source, windows, bias, threads)
    return target


def correlation(
    packed: MaskFormat, source: Array, gradient: Array, windows: ConvolutionWindows, threads: int = 1
) -> Array:
    """The gradient of the kept weights, in the format's order.

    Args:
        packed: the mask.
        source: what the product read.
        gradient: of what it wrote.
        windows: how targets read sources.
        threads: how many.
    """
    shape = packed.vectors
    parts = max(1, min(threads, len(tiles_of(windows, packed.chains, shape.lanes, shape.count))))
    sums = np.zeros((parts, packed.slots), source.dtype)
    run_into(gradient, packed, sums, source, windows)
    # in the order of tiles, whichever thread was first: the same bits each time
    whole: Array = sums[0] if parts == 1 else sums.sum(0)
    return whole


def run_into(
    target: Array,
    packed: MaskFormat,
    values: Array,
    source: Array,
    windows: ConvolutionWindows,
    bias: Array | None = None,
    threads: int = 1,
) -> None:
    """Run a kernel over all tiles.

    Args:
        target: what is written; or, where each part of the tiles has values of its own, the gradient that is read.
        packed: the mask.
        values: (slots,) that are read, or (parts, slots) that are added to.
        source: (images, height, width, channels), flat.
        windows: how targets read sources.
        bias: one for each output; None or empty for none.
        threads: how many, where values are read.
    """
    from iftplan.nn.execution.kernels.sweeps import sweep_of

    correlates = values.ndim == 2
    sweep = sweep_of(packed, windows, correlates=correlates)
    parts = len(values) if correlates else max(1, min(threads, len(sweep.tiles)))
    added = bias if bias is not None and len(bias) else None
    run_job(sweep.run, sweep.told(parts, values, source, added, target))
