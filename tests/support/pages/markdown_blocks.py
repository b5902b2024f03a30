"""Code blocks of a Markdown file, and how each kind is run and compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.M | re.S)
_ELISION = "…"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        place: file name and line, for messages.
        language: the first word after the fence.
        file: what `file=NAME` after it names; empty if nothing.
        body: the text between the fences.
    """

    place: str
    language: str
    file: str
    body: str


class BlockError(AssertionError):
    """A block did not do what the document shows."""


def blocks(document: Path) -> Iterator[Block]:
    """Every fenced block of a document in order."""
    text = document.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        language, *options = match["info"].split() or [""]
        files = [option.removeprefix("file=") for option in options if option.startswith("file=")]
        yield Block(f"{document.name}:{line}", language, "".join(files), match["body"])


def run(block: Block, directory: Path) -> None:
    """Run a block in a directory; a console block must also print what it shows.

    Raises:
        BlockError: it failed, or printed something else.
    """
    match block.language:
        case "python":
            script = directory / (block.file or "block.py")
            script.write_text(block.body, encoding="utf-8")
            _output(block, [sys.executable, script.name], directory)
        case "bash":
            _output(block, ["bash", "-euo", "pipefail", "-c", block.body], directory)
        case "console":
            for command, shown in commands(block):
                printed = _output(block, ["bash", "-c", command], directory).splitlines()
                if not matches(shown, printed):
                    raise BlockError(
                        f"{block.place}: $ {command}\nshown:\n{_lines(shown)}\nprinted:\n{_lines(printed)}"
                    )


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Each `$ command` of a console block with the lines that are shown beneath it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
        else:
            raise BlockError(f"{block.place}: a console block begins with a line `$ command`, not {line!r}.")
    return found


def matches(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the lines agree; a line `…` stands for any number of lines, blank lines count nowhere."""
    escaped = [r"(?:[^\n]*\n)*?" if line == _ELISION else re.escape(line) + "\n" for line in _inked(shown)]
    return re.fullmatch("".join(escaped), "".join(f"{line}\n" for line in _inked(printed))) is not None


def _inked(lines: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in lines if line.strip()]


def _output(block: Block, command: Sequence[str], directory: Path) -> str:
    """What a command prints on both streams, as a terminal shows it."""
    own = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUTF8": "1",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "IFTPLAN": str(ROOT),  # a clone of this repository, where a page needs one
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{
            f"GIT_{who}_{what}": "a@b.example"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise BlockError(
            f"{block.place}: exit status {done.returncode}\n{block.body}\nprinted:\n{done.stdout}"
        )
    return done.stdout


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
