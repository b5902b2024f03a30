"""Kernels on several threads: those of PyTorch, where they are to be had.

OpenMP's threads wait for their next work with their processors busy, up to some milliseconds. Threads of our own would
share processors with them after every operator of PyTorch; a team of the same OpenMP is there at once.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SHARE: Final = ("parts", "thread", "team", "ask_thread", "ask_team")
"""The last numbers of every job: `parts` there are, and a thread takes those whose number is its own, and every `team`-th
after it. It asks for its number and the team's size at `ask_thread` and `ask_team`, if these are no 0."""

_PARTS, _THREAD, _TEAM, _ASK_THREAD, _ASK_TEAM = range(-len(SHARE), 0)


class Compiled:
    """A compiled function of a job's address, and how it is called.

    Args:
        function: numba's `cfunc`.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.address: int = function.address
        self.call = function.ctypes  # which numba makes anew whenever it is asked for


@dataclass(frozen=True, slots=True)
class OpenMP:
    """The runtime that this process has.

    Attributes:
        parallel: runs a function of an address on several threads, without the interpreter.
        thread: address of the function that tells a thread its number.
        team: address of the function that tells how many there are.
    """

    parallel: Any
    thread: int
    team: int


@lru_cache(maxsize=1)
def openmp() -> OpenMP | None:
    """PyTorch's runtime, if it is one with GNU's interface; LLVM's and Intel's have that too."""
    for name in (None, "libgomp.so.1"):
        try:
            library = ctypes.CDLL(name)
            parallel = library.GOMP_parallel
            addresses = [
                ctypes.cast(function, ctypes.c_void_p).value
                for function in (library.omp_get_thread_num, library.omp_get_num_threads)
            ]
        except (OSError, AttributeError, TypeError):  # not loaded, not there, or not how this system finds it
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return OpenMP(parallel, addresses[0] or 0, addresses[1] or 0)
    return None


def run_job(run: Compiled, job: NDArray[np.int64]) -> None:
    """Run a compiled function on as many threads as its job has parts.

    Args:
        run: the function.
        job: as `iftplan.nn.execution.kernels.jobs.made_job` makes it.
    """
    parts = int(job[_PARTS])
    runtime = openmp() if parts > 1 else None
    if runtime is not None:
        job[_ASK_THREAD], job[_ASK_TEAM] = runtime.thread, runtime.team
        runtime.parallel(run.address, job.ctypes.data, parts, 0)
        return
    job[_TEAM] = parts
    if parts == 1:
        run.call(job.ctypes.data)
        return
    shares = [job.copy() for _ in range(parts)]
    for thread, share in enumerate(shares):
        share[_THREAD] = thread
    with ThreadPoolExecutor(parts) as pool:
        for done in [pool.submit(run.call, share.ctypes.data) for share in shares]:
            done.result()
