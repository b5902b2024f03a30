"""Where things lie that tests look for."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
BENCHMARKS = ROOT / "benchmarks"
GOLDEN = TESTS / "golden"
