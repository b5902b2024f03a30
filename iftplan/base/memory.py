"""Memory that this process asks the system for."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4
"""Parameters of glibc's `mallopt`."""


def keep_memory() -> bool:
    """Have freed memory used again by this process instead of given back to the system; whether that could be said.

    glibc takes every large allocation from the system and returns it, and the system clears each page that it gives:
    a network in training, whose activations are as large in every step, spends up to a fifth of a step on that. The
    process then stays as large as it once was. Where the environment sets glibc's allocator already, or another C
    library is used, nothing is changed.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc, or no such thing as a C library here
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
