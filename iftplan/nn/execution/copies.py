"""Values collected from where they lie, and put back, by several threads; compiled by numba once for each width of values."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numba
import numpy as np
from numba import carray, types
from numpy.typing import NDArray

from iftplan.nn.execution import jobs
from iftplan.nn.execution.jobs import at, job_type, made_job, made_of, mine
from iftplan.nn.execution.teams import Compiled, run_job

Array = NDArray[Any]

_TAKE: Final = job_type("source", "places", "target", "count")
_PUT: Final = job_type("values", "starts", "columns", "slots", "line", "lines", "target")
_SMALLEST: Final = 16_384
"""Entries that a thread is woken for."""


def take(source: Array, places: NDArray[np.int32], threads: int = 1) -> Array:
    """Entries of a flat array, in the order of their places; zero where a place is negative.

    Args:
        source: flat.
        places: where.
        threads: how many.
    """
    target = np.empty(len(places), source.dtype)
    told = {"source": source, "places": places, "target": target, "count": len(places)}
    run_job(_taking(source.itemsize), made_job(_TAKE, _parts(len(places), threads), told))
    return target


def put_lines(
    target: Array,
    values: Array,
    starts: NDArray[np.int64],
    columns: NDArray[np.int32],
    slots: NDArray[np.int32],
    threads: int = 1,
) -> None:
    """Lines of a flat array: zero, but for values at some columns. A line is cleared and filled while it is in the cache.

    Args:
        target: flat, of `len(starts) - 1` lines.
        values: that are put.
        starts: first of each line's columns, and the end.
        columns: of each value in its line.
        slots: which value it is.
        threads: how many.
    """
    lines = len(starts) - 1
    told = {
        "values": values, "starts": starts, "columns": columns, "slots": slots, "line": len(target) // max(lines, 1),
        "lines": lines, "target": target,
    }  # fmt: skip
    run_job(_putting(values.itemsize), made_job(_PUT, _parts(len(target), threads), told))


def _parts(entries: int, threads: int) -> int:
    return max(1, min(threads, entries // _SMALLEST))


@lru_cache(maxsize=2)
def _taking(size: int) -> Compiled:
    dtype, version = np.float32 if size == 4 else np.float64, made_of(jobs)

    @numba.cfunc(types.void(types.voidptr), cache=True)
    def run(address):  # type: ignore[no-untyped-def]
        job = carray(address, (1,), _TAKE)[0]
        places = carray(at(job.places), (job.count,), np.int32)
        target = carray(at(job.target), (job.count,), dtype)
        first, apart = mine(job)
        # only as far as places reach: how long the source is, nobody needs to know
        source = carray(at(job.source), (1 << 40,), dtype)
        if version < 0:  # closed over, for numba's cache
            return
        for part in range(first, job.parts, apart):
            for i in range(job.count * part // job.parts, job.count * (part + 1) // job.parts):
                place = places[i]
                target[i] = source[place] if place >= 0 else 0

    return Compiled(run)


@lru_cache(maxsize=2)
def _putting(size: int) -> Compiled:
    dtype, version = np.float32 if size == 4 else np.float64, made_of(jobs)

    @numba.cfunc(types.void(types.voidptr), cache=True)
    def run(address):  # type: ignore[no-untyped-def]
        job = carray(address, (1,), _PUT)[0]
        starts = carray(at(job.starts), (job.lines + 1,), np.int64)
        kept = starts[job.lines]
        columns = carray(at(job.columns), (kept,), np.int32)
        slots = carray(at(job.slots), (kept,), np.int32)
        values = carray(at(job.values), (1 << 40,), dtype)
        target = carray(at(job.target), (job.lines, job.line), dtype)
        first, apart = mine(job)
        if version < 0:  # closed over, for numba's cache
            return
        for part in range(first, job.parts, apart):
            for line in range(job.lines * part // job.parts, job.lines * (part + 1) // job.parts):
                target[line] = 0
                for i in range(starts[line], starts[line + 1]):
                    target[line, columns[i]] = values[slots[i]]

    return Compiled(run)
