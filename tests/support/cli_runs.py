"""Running the command line as users do: in a process of its own, or many times in one that has torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRESS = " …"
"""How a line that says what is being done ends."""


@dataclass(frozen=True)
class Run:
    """One finished command."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What was said on stderr, without the lines of progress."""
        lines = self.err.splitlines()
        return "\n".join(x for x in lines if not x.endswith(PROGRESS) or x.startswith("iftplan: ")).strip()


def iftplan(
    *arguments: str | bytes, cwd: Path, stdin: str | bytes = b"", env: Mapping[str, str] | None = None
) -> Run:
    """A process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "iftplan", *arguments],
        cwd=cwd,
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


_MANY = """
import contextlib, io, json, sys
from iftplan.cli.main import main
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
            code = "main returned"
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:
            code = f"{type(error).__name__} came through: {error}"
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


def many(commands: Sequence[Sequence[str]], cwd: Path) -> list[Run]:
    """Commands one after the other in one process, so that torch is imported once; their stdin is empty."""
    done = subprocess.run(
        [sys.executable, "-c", _MANY],
        cwd=cwd,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(commands), f"{commands[len(lines)]} ended the process: {done.stderr[-2000:]}"
    return [Run(*json.loads(line)) for line in lines]


def document(path: Path) -> dict[str, Any]:
    """A file that a command wrote, as JSON."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
