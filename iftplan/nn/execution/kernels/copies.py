"""Values collected from where they lie, and put back, by several threads; compiled by numba once for each width of values."""

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

Array = NDArray[Any]

_TAKE: Final = job_type("source", "entries", "places", "target", "count")
_PUT: Final = job_type("values", "entries", "starts", "columns", "slots", "line", "lines", "target")
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
    told = {
        "source": source, "entries": len(source), "places": places, "target": target, "count": len(places),
    }  # fmt: skip
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
        "values": values, "entries": len(values), "starts": starts, "columns": columns, "slots": slots, "line": len(target) // max(lines, 1),
        "lines": lines, "target": target,
    }  # fmt: skip
    run_job(_putting(values.itemsize), made_job(_PUT, _parts(len(target), threads), told))


def _parts(entries: int, threads: int) -> int:
    return max(1, min(threads, entries // _SMALLEST))


@numba.njit(cache=True)
def _take(source, places, target):  # type: ignore[no-untyped-def]
    for i in range(len(places)):
        place = places[i]
        target[i] = source[place] if place >= 0 else 0


@numba.njit(cache=True)
def _put_line(values, columns, slots, target):  # type: ignore[no-untyped-def]
    target[:] = 0
    for i in range(len(columns)):
        target[columns[i]] = values[slots[i]]


@lru_cache(maxsize=2)
def _taking(size: int) -> Compiled:
    dtype, version = np.float32 if size == 4 else np.float64, made_of(jobs)

    @numba.cfunc(types.void(types.voidptr), cache=True)
    def run(address):  # type: ignore[no-untyped-def]
        job = carray(address, (1,), _TAKE)[0]
        places = carray(at(job.places), (job.count,), np.int32)
        target = carray(at(job.target), (job.count,), dtype)
        source = carray(at(job.source), (job.entries,), dtype)
        first, apart = mine(job)
        if version < 0:  # closed over, for numba's cache
            return
        for part in range(first, job.parts, apart):
            begin, end = job.count * part // job.parts, job.count * (part + 1) // job.parts
            _take(source, places[begin:end], target[begin:end])

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
        values = carray(at(job.values), (job.entries,), dtype)
        target = carray(at(job.target), (job.lines, job.line), dtype)
        first, apart = mine(job)
        if version < 0:  # closed over, for numba's cache
            return
        for part in range(first, job.parts, apart):
            for line in range(job.lines * part // job.parts, job.lines * (part + 1) // job.parts):
                begin, end = starts[line], starts[line + 1]
                _put_line(values, columns[begin:end], slots[begin:end], target[line])

    return Compiled(run)
