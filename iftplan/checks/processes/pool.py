"""Measuring in other processes: as many as help, each with its share of the models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Request = Mapping[str, Any]
Answer = Mapping[str, Any]

_WORTH_A_PROCESS = 3
"""To import torch takes about as long as to measure so many small models."""

_BOOT = """
import os, sys
root, old, new = sys.argv.pop(1), sys.argv.pop(1), sys.argv.pop(1)
if old:  # what is installed from another checkout is imported from this one
    sys.path[:] = [new + p[len(old):] if (os.path.realpath(p) + os.sep).startswith(old + os.sep) else p for p in sys.path]
sys.path.append(root)
from iftplan.checks.processes.worker import main
main()
"""


def measure_all(
    requests: Sequence[Request], folder: Path, jobs: int | None = None, paths: tuple[Path, Path] | None = None
) -> list[Answer]:
    """Answer to each request: `measured`, `reads` and `outward`, or `error` and `exit_code`.

    Args:
        requests: what to measure.
        folder: the working directory, from which paths and imports begin.
        jobs: processes; None for as many as help.
        paths: a checkout that is imported from, and the one to import from instead.
    """
    if not requests:
        return []
    helpful = min(os.cpu_count() or 1, -(-len(requests) // _WORTH_A_PROCESS))
    count = min(jobs or helpful, len(requests))
    workers = [_Worker(list(requests[i::count]), folder, paths) for i in range(count)]
    with ThreadPoolExecutor(count) as pool:
        try:
            found = list(pool.map(lambda worker: list(worker.answers()), workers))
        except BaseException:  # an interruption ends what it interrupts
            for worker in workers:
                worker.stop()
            raise
    return [found[i % count][i // count] for i in range(len(requests))]


class _Worker:
    """A share of the requests, and the process that answers them."""

    def __init__(self, requests: list[Request], folder: Path, paths: tuple[Path, Path] | None) -> None:
        self._requests = requests
        self._folder = folder
        self._paths = paths or ("", "")
        self._process: subprocess.Popen[str] | None = None

    def answers(self) -> Iterator[Answer]:
        """Answers in order; a process that dies is replaced for the requests that come after."""
        while self._requests:
            code, answers = self._run()
            yield from answers
            self._requests = self._requests[len(answers) :]
            if self._requests:
                source = self._requests.pop(0)["source"]
                yield {
                    "error": f"the process that measured {source} ended with status {code} before it had an answer; what it said is above.",
                    "exit_code": 3,
                }

    def stop(self) -> None:
        """Answer nothing more."""
        self._requests = []
        if self._process is not None:
            self._process.kill()

    def _run(self) -> tuple[int, list[Answer]]:
        root = Path(__file__).resolve().parents[3]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(root), *map(str, self._paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._folder,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        out, _ = self._process.communicate("".join(json.dumps(r) + "\n" for r in self._requests))
        return self._process.returncode, [json.loads(line) for line in out.splitlines()]
