"""What this project promises to be fast, in one run: commands, planning, counting.

    python benchmarks/all.py

Every other program runs by itself, and its first lines say how. `counting/` counts networks of this package and of others,
`planning/` makes plans, sweeps and searches, `speed/` times kernels, layers, networks and commands, `training/` makes the
tables of results, and `processes/` kills runs, shares them and streams their data.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    for name in ("speed/commands.py", "planning/planning.py", "counting/counting.py"):
        path = Path(__file__).parent / name
        sys.argv = [path.name]
        runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main()
