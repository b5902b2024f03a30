"""Every benchmark in one run: commands, planning, counting.

python benchmarks/all.py
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    for name in ("commands", "planning", "counting"):
        sys.argv = [f"{name}.py"]
        runpy.run_path(str(Path(__file__).with_name(f"{name}.py")), run_name="__main__")


if __name__ == "__main__":
    main()
