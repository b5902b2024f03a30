"""Products of weights in slices with few columns, on as many threads as torch uses; compiled for each number of pairs of columns."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numba
import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from iftplan.nn.execution.kernels import jobs
from iftplan.nn.execution.kernels.jobs import at, job_type, made_job, made_of, mine
from iftplan.nn.execution.kernels.threads import Compiled, run_job
from iftplan.nn.execution.slices import gathers
from iftplan.nn.execution.slices.formats import RowSlices
from iftplan.nn.execution.slices.gathers import columns_together, slice_sums

Array = NDArray[Any]

_JOB: Final = job_type(
    "source", "bias", "target", "columns",  # of one product
    "starts", "slices", "rows", "gaps", "channels", "outputs", "values", "scales", "bounds",
)  # fmt: skip


class SlicedMatrix:
    """A weight in slices, ready to be multiplied with few columns.

    Args:
        slices: places of the kept weights.
        values: of them, in the order of the slices: numbers like the columns', bfloat16 as its 16 bits, or whole numbers in 8.
        scales: what each output is multiplied with; None for nothing.
    """

    def __init__(self, slices: RowSlices, values: Array, scales: Array | None) -> None:
        self.slices, self.values, self.scales = slices, values, scales
        self._jobs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # jobs have the addresses of these very arrays
        return SlicedMatrix, (self.slices, self.values, self.scales)

    def multiply(self, count: int, bits: int, source: int, bias: int, target: int, threads: int = 1) -> None:
        """Write the matrix times each of a few columns, plus the bias.

        Args:
            count: of the columns.
            bits: of a number, 32 or 64.
            source: address of (columns, inputs).
            bias: address of one number for each output; 0 for none.
            target: address of (columns, outputs), written.
            threads: how many.
        """
        parts = max(1, min(threads, len(self.slices.starts) - 1))
        if parts not in self._jobs:
            self._jobs[parts] = self._job(parts)
        # a copy, as others may be at the same layer
        job = self._jobs[parts][0].copy()
        job[:4] = source, bias, target, count
        together = columns_together(bits, count)
        run_job(_kernel(self.slices.lanes, bits, -(-count // together), together, self.values.itemsize), job)

    def _job(self, parts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is told for every product, and the bounds of parts, which have to live for as long."""
        slices, bounds = self.slices, self.slices.bounds(parts)
        told = {
            "source": 0, "bias": 0, "target": 0, "columns": 0, "starts": slices.starts, "slices": len(slices.starts) - 1,
            "rows": slices.rows, "gaps": slices.gaps, "channels": slices.channels, "outputs": slices.outputs,
            "values": self.values, "scales": 0 if self.scales is None else self.scales, "bounds": bounds,
        }  # fmt: skip
        return made_job(_JOB, parts, told), bounds


@lru_cache(maxsize=64)
def _kernel(lanes: int, bits: int, groups: int, together: int, kept: int) -> Compiled:
    """The walk over slices, as a function of a job's address.

    Args:
        lanes: rows of a slice.
        bits: of a sum.
        groups: of columns that are read together; the last may be short of one.
        together: columns of each.
        kept: bytes of a value.
    """
    dtype, size = (np.float32, 4) if bits == 32 else (np.float64, 8)
    version = made_of(gathers, jobs)

    @numba.cfunc(types.void(types.voidptr), cache=True)
    def run(address):  # type: ignore[no-untyped-def]
        job = carray(address, (1,), _JOB)[0]
        starts = carray(at(job.starts), (job.slices + 1,), np.int64)
        rows = carray(at(job.rows), (job.slices, lanes), np.int32)
        bounds = carray(at(job.bounds), (job.parts + 1,), np.int64)
        scales = carray(at(job.scales), (job.outputs if job.scales else 0,), np.float32)
        bias = carray(at(job.bias), (job.outputs if job.bias else 0,), dtype)
        source = carray(at(job.source), (job.columns, job.channels), dtype)
        target = carray(at(job.target), (job.columns, job.outputs), dtype)
        first, apart = mine(job)
        sums = np.empty((groups, lanes, together), dtype)
        pairs = np.zeros((groups, job.channels if together == 2 else 0, together), dtype)
        if together == 2:
            for column in range(job.columns):
                for i in range(job.channels):
                    pairs[column // 2, i, column % 2] = source[column, i]
        if version < 0:  # closed over, for numba's cache
            return
        for part in range(first, job.parts, apart):
            for n in range(bounds[part], bounds[part + 1]):
                step = starts[n]
                # asked for here: numba frees an array after its last use, and an address is none
                read = pairs.ctypes.data if together == 2 else source.ctypes.data
                slice_sums(
                    lanes, bits, groups, together, kept, job.values + kept * lanes * step, job.gaps + lanes * step,
                    starts[n + 1] - step, read, together * size * job.channels, sums.ctypes.data,
                )  # fmt: skip
                for lane in range(lanes):
                    row = rows[n, lane]
                    if row < 0:
                        break
                    for column in range(job.columns):
                        total = sums[column // together, lane, column % together]
                        if len(scales):
                            total *= scales[row]
                        if len(bias):
                            total += bias[row]
                        target[column, row] = total

    return Compiled(run)
