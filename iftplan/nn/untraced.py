"""Out of sight of PyTorch's jit tracer for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def untraced() -> Iterator[None]:
    """Let nothing be recorded, and sizes be numbers, while the context is open."""
    tracing = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[arg-type]  # torch's stub forgets that None ends it
    try:
        yield
    finally:
        torch._C._set_tracing_state(tracing)
