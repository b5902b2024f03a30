"""Where things lie that tests look for, and which releases they are tested with."""

from pathlib import Path

import iftplan

PACKAGE = Path(iftplan.__file__).parent
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
BENCHMARKS = ROOT / "benchmarks"
GOLDEN = TESTS / "golden"
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)

MOST = 15
"""Entries of a folder, files and folders of Python, that someone can take in at once."""


def page_named(name: str) -> Path:
    """The page of documentation of that file name, in whichever folder it lies."""
    (found,) = (path for path in PAGES if path.name == name)
    return found


def pins(name: str) -> dict[str, str]:
    """Package → release, of a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))
