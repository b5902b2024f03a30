"""Where things lie that tests look for."""

from pathlib import Path

import iftplan

PACKAGE = Path(iftplan.__file__).parent
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
BENCHMARKS = ROOT / "benchmarks"
GOLDEN = TESTS / "golden"

MOST = 15
"""Entries of a folder, files and folders of Python, that someone can take in at once."""
