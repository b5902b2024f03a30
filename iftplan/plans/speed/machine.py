"""The machine at hand, by the name of its processor."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
