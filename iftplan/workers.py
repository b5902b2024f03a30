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
from iftplan.nn.worker import main
main()
"""


def measure_all(
    requests: Sequence[Request], folder: Path, jobs: int | None = None, paths: tuple[Path, Path] | None = None
) -> list[Answer]:
    """Each request's answer: `measured`, `reads` and `outward`, or `error` and `exit_code`.

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
    shares = [list(requests[i::count]) for i in range(count)]
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(lambda share: list(_answers(share, folder, paths)), shares))
    return [found[i % count][i // count] for i in range(len(requests))]


def _answers(requests: list[Request], folder: Path, paths: tuple[Path, Path] | None) -> Iterator[Answer]:
    """Answers in order; a process that dies is replaced for those that come after."""
    while requests:
        code, answers = _process(requests, folder, paths)
        yield from answers
        requests = requests[len(answers) :]
        if requests:
            source = requests.pop(0)["source"]
            yield {
                "error": f"the process that measured {source} ended with status {code} before it had an answer; what it said is above.",
                "exit_code": 3,
            }


def _process(
    requests: Sequence[Request], folder: Path, paths: tuple[Path, Path] | None
) -> tuple[int, list[Answer]]:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _BOOT, str(root), *map(str, paths or ("", ""))],
        input="".join(json.dumps(request) + "\n" for request in requests),
        stdout=subprocess.PIPE,
        cwd=folder,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
