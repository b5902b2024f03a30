"""Measuring in other processes: one that has loaded PyTorch, and as many copies of it as help."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from iftplan.checks.processes.worker import died

Request = Mapping[str, Any]
Answer = Mapping[str, Any]

_BOOT = """
import sys
sys.path.append(sys.argv.pop(1))
from iftplan.checks.processes.worker import main
main()
"""


def measure_all(
    requests: Sequence[Request],
    folder: Path,
    jobs: int | None = None,
    paths: tuple[Path, Path] | None = None,
    done: Callable[[int, Answer], object] = lambda number, answer: None,
) -> list[Answer]:
    """Answer to each request: `measured`, `reads` and `outward`, or `error` and `exit_code`.

    Args:
        requests: what to measure.
        folder: the working directory, from which paths and imports begin.
        jobs: models that are measured at once; None for as many as there are processors.
        paths: a checkout that is imported from, and the one to import from instead.
        done: hears of every model that is measured: its number and the answer.
    """
    where = {"folder": str(folder), "paths": [*map(str, paths or ("", ""))]}
    waiting = [{**request, **where, "id": i} for i, request in enumerate(requests)]
    answers: dict[int, Answer] = {}
    server: _Server | None = None
    try:
        while len(answers) < len(requests):
            server = _Server.running()
            left = [request for request in waiting if request["id"] not in answers]
            answers |= server.answers(left, jobs or os.cpu_count() or 1, done)
    except BaseException:  # an interruption ends what it interrupts
        if server is not None:
            server.stop()
        raise
    return [answers[i] for i in range(len(requests))]


class _Server:
    """The process that has loaded PyTorch; there is one, for as long as this process runs."""

    _one: _Server | None = None

    @classmethod
    def running(cls) -> _Server:
        """The running worker process, or a new one."""
        if cls._one is None or cls._one._process.poll() is not None:
            cls._one = cls()
        return cls._one

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[3]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        atexit.register(self.close)

    def answers(
        self, requests: Sequence[Request], jobs: int, done: Callable[[int, Answer], object]
    ) -> dict[int, Answer]:
        """Answers by number of request; if the process ends early, the first request without an answer ended it.

        Args:
            requests: each with its number.
            jobs: how many it has at once.
            done: hears of every answer.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        waiting, begun = list(requests), dict[int, Request]()
        found: dict[int, Answer] = {}
        while waiting or begun:
            with suppress(BrokenPipeError):
                while waiting and len(begun) < jobs:
                    request = waiting.pop(0)
                    begun[request["id"]] = request
                    self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line:
                code = self._process.wait()
                return found | {number: died(r["source"], code) for number, r in begun.items()}
            answer = json.loads(line)
            number = answer.pop("id")
            del begun[number]
            found[number] = answer
            done(number, answer)
        return found

    def close(self) -> None:
        """Send no more requests, and let the process end."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.wait()

    def stop(self) -> None:
        """End the process and its children."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
