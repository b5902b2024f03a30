"""What a kernel is told again and again: the part of its job that a mask and its windows decide.

A small layer takes as long as naming two dozen arrays and numbers does, so they are named once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.compiled import JOB, kernel
from iftplan.nn.execution.kernels.formats import MaskFormat
from iftplan.nn.execution.kernels.jobs import made_job
from iftplan.nn.execution.kernels.threads import SHARE, Compiled
from iftplan.nn.execution.kernels.tiles import Tiles, tiles_of
from iftplan.nn.execution.kernels.windows import ConvolutionWindows

_EACH: Final = ("values", "values_apart", "source", "bias", "target", *SHARE)
"""Numbers of a job that change from call to call."""

_VALUES, _APART, _SOURCE, _BIAS, _TARGET, _PARTS = ((JOB.names or ()).index(name) for name in _EACH[:6])

_MOST: Final = 16
"""Kinds of windows of one mask whose jobs are kept, such as numbers of samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """A mask and windows, told to a kernel.

    Attributes:
        job: the record without what changes from call to call.
        run: the kernel.
        tiles: which it walks over; the job names their arrays.
        starts: first vectors of the chains, which the job names too.
    """

    job: NDArray[np.int64]
    run: Compiled
    tiles: Tiles
    starts: NDArray[np.int64]

    def told(
        self,
        parts: int,
        values: NDArray[Any],
        source: NDArray[Any],
        bias: NDArray[Any] | None,
        target: NDArray[Any],
    ) -> NDArray[np.int64]:
        """The record of one call, whose arrays have to live for as long as it does.

        Args:
            parts: of the work.
            values: (slots,) that are read, or (parts, slots) that are added to.
            source: flat.
            bias: one for each output; None for none.
            target: flat.
        """
        job = self.job.copy()
        job[_PARTS] = parts
        job[_VALUES], job[_APART] = values.ctypes.data, values.strides[0] if values.ndim == 2 else 0
        job[_SOURCE], job[_TARGET] = source.ctypes.data, target.ctypes.data
        if bias is not None:
            job[_BIAS] = bias.ctypes.data
        return job


def sweep_of(packed: MaskFormat, windows: ConvolutionWindows, *, correlates: bool) -> Sweep:
    """A mask over windows, told once.

    Args:
        packed: the mask.
        windows: how targets read sources.
        correlates: whether values are added to, instead of read.
    """
    found: Sweep | None = packed.sweeps.get((windows, correlates))
    if found is None:
        if len(packed.sweeps) >= _MOST:
            packed.sweeps.clear()
        found = packed.sweeps[windows, correlates] = _made(packed, windows, correlates)
    return found


def _made(packed: MaskFormat, windows: ConvolutionWindows, correlates: bool) -> Sweep:
    shape = packed.vectors
    tiles = tiles_of(windows, packed.chains, shape.lanes, shape.count)
    starts = packed.chains.vectors(shape.count)
    told = {
        "offsets": packed.offsets, "rows": packed.rows, "counts": packed.counts, "panels": packed.panels,
        "row_starts": packed.row_starts, "row_blocks": len(packed.row_starts) - 1, "blocks": packed.blocks,
        "block_count": len(packed.blocks), "starts": starts, "chains": len(starts) - 1, "targets": tiles.targets,
        "depths": tiles.depths, "sources": tiles.sources, "source_vectors": tiles.sources.shape[1], "there": tiles.there,
        "tiles": len(tiles), "channels": packed.channels, "outputs": packed.outputs,
    }  # fmt: skip
    job = made_job(JOB, 0, {**dict.fromkeys(_EACH, 0), **told})
    return Sweep(job, kernel(shape, int(packed.shared), int(correlates)), tiles, starts)
