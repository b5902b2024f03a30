"""What a compiled function is told: addresses and numbers in one record, whose address is all that it is called with.

It needs no interpreter then, so that any thread can run it; `iftplan.nn.execution.kernels.threads` has the threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from iftplan.nn.execution.kernels.threads import SHARE


def job_type(*names: str) -> np.dtype[Any]:
    """A record of 64-bit numbers: those that are named, and a thread's share (`iftplan.nn.execution.kernels.threads.SHARE`)."""
    return np.dtype([(name, np.int64) for name in (*names, *SHARE)])


def made_job(kind: np.dtype[Any], parts: int, told: Mapping[str, Any]) -> NDArray[np.int64]:
    """Record of a job; arrays are named by their addresses, and have to live for as long as the job does.

    Args:
        kind: as `job_type` makes it.
        parts: of the work.
        told: every other number.
    """
    told = {**told, **dict.fromkeys(SHARE, 0), "parts": parts}
    names = kind.names or ()
    # of numbers alone: setting a record field by field takes as long as a small layer
    return np.array(
        [v.ctypes.data if isinstance(v := told[name], np.ndarray) else v for name in names], np.int64
    )


@lru_cache(maxsize=8)
def made_of(*modules: ModuleType) -> int:
    """A checksum of modules that a compiled function is made of.

    numba's cache asks only whether the function's own file is the same, and what the function closes over.
    """
    return crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in modules))


@intrinsic  # type: ignore[untyped-decorator]
def at(context: Any, address: Any) -> Any:
    """Pointer to an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def call_context(context: Any, address: Any) -> Any:
    """Answer of a C function without arguments, as a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = ir.FunctionType(ir.IntType(32), []).as_pointer()
        answer = builder.call(builder.inttoptr(args[0], function), [])
        return builder.sext(answer, ir.IntType(64))

    return types.int64(types.int64), generate


@numba.njit(cache=True)
def mine(job):  # type: ignore[no-untyped-def]
    """A thread's first part, and how far its next one is."""
    first = call_context(job.ask_thread) if job.ask_thread else job.thread
    return first, call_context(job.ask_team) if job.ask_team else job.team
