"""What a command writes to a terminal, and when."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shown:
    """What stood on the terminal.

    Attributes:
        text: all of it.
        first: seconds from the start of the process to its first character, infinite without any.
        whole: seconds to its end.
        status: of the process.
    """

    text: str
    first: float
    whole: float
    status: int


def errors_on_terminal(arguments: Sequence[str], folder: Path, **environment: str) -> Shown:
    """Run Python with stderr on a terminal of 100 columns.

    Args:
        arguments: of Python.
        folder: to run in.
        **environment: what differs from ours.
    """
    master, slave = pty.openpty()
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "FORCE_COLOR")}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
        env={**kept, "COLUMNS": "100", "TERM": "xterm", **environment},
    )
    os.close(slave)
    found, first = b"", float("inf")
    while part := _read(master):
        first = min(first, time.perf_counter() - begin)
        found += part
    status = process.wait()
    os.close(master)
    return Shown(found.decode(), first, time.perf_counter() - begin, status)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
