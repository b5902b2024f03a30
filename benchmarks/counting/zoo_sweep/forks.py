"""A process for each task, forked from one that has the libraries imported, with limits of time and memory."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Say = Callable[[dict[str, Any]], None]


@dataclass
class Fork:
    """One task in a process of its own.

    Attributes:
        said: what it has reported so far, in order.
        ended: empty while it runs; then "ended", "out of time", "out of memory" or what ended it.
    """

    task: Callable[[Say], None]
    seconds: float
    gigabytes: float
    said: list[dict[str, Any]] = field(default_factory=list)
    ended: str = ""

    def __post_init__(self) -> None:
        gc.collect()
        gc.freeze()  # a child's collector need not touch, and so copy, what all of them share
        self.reader, writer = os.pipe()
        self.started = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.reader)
            _child(self.task, writer, self.gigabytes)
        os.close(writer)
        self._rest = b""

    def look(self, wait: float) -> None:
        """Read what it reports for up to `wait` seconds; end it when its time is over."""
        left = self.started + self.seconds - time.monotonic()
        if select.select([self.reader], [], [], max(0, min(wait, left)))[0]:
            chunk = os.read(self.reader, 1 << 16)
            if not chunk:
                self._finish("")
                return
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            self.said += [json.loads(line) for line in lines]
        if time.monotonic() - self.started > self.seconds:
            os.kill(self.pid, signal.SIGKILL)
            self._finish("out of time")

    def _finish(self, why: str) -> None:
        os.close(self.reader)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.ended = why or {0: "ended", OUT_OF_MEMORY: "out of memory"}.get(
            code, f"ended with status {code}"
        )

    @property
    def took(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started


OUT_OF_MEMORY = 77


def _child(task: Callable[[Say], None], writer: int, gigabytes: float) -> None:
    code = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        limit = _in_use() + int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with os.fdopen(writer, "w", buffering=1) as pipe:
            try:
                task(lambda record: _write(pipe, record))
                code = 0
            except MemoryError:
                code = OUT_OF_MEMORY
            except BaseException:
                _write(pipe, {"broken": traceback.format_exc()[-2000:]})
    finally:
        os._exit(code)


def _write(pipe: Any, record: dict[str, Any]) -> None:
    pipe.write(json.dumps(record) + "\n")
    pipe.flush()


def _in_use() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123  (a file of the kernel, on Linux)
        return int(statm.read().split()[0]) * resource.getpagesize()
