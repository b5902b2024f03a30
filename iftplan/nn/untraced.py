"""Out of sight of PyTorch's jit tracer for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from typing import Any, Final

import torch

_C: Final[Any] = torch._C  # whose stub leaves out half of this


@contextmanager
def untraced() -> Iterator[None]:
    """Let nothing be recorded, and sizes be numbers, while the context is open."""
    tracing = torch._C._get_tracing_state()
    _C._set_tracing_state(None)
    try:
        yield
    finally:
        _C._set_tracing_state(tracing)
