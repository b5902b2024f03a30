"""Published models counted by iftplan and by torch's FlopCounterMode as it comes: `python benchmarks/counting/models.py`.

Equal to the MAC, or apart by operators that the other counter has no formula for, which are named with their cost.
Ends with 1 unless every difference is explained to the MAC.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from tests.support.models.twenty import FIELDS, Comparison, compare


def told(found: Comparison) -> str:
    if found.ours == found.independent:
        return "equal"
    named = ", ".join(f"{name} {macs:,}" for name, macs in found.without_formula.items())
    return f"without {named}" if found.explained else f"NOT EXPLAINED (without {named or 'nothing'})"


def main() -> int:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(f"{'model':14s}{'field':20s}{'iftplan MACs':>18s}{'FlopCounterMode':>18s}  difference")
    found = {}
    for field, names in FIELDS.items():
        for name in names:
            found[name] = compare(name)
            row = found[name]
            print(f"{name:14s}{field:20s}{row.ours:>18,}{row.independent:>18,}  {told(row)}", flush=True)
    equal = sum(row.ours == row.independent for row in found.values())
    explained = sum(row.explained for row in found.values())
    print(
        f"{len(found)} models: {equal} equal to the MAC, {explained - equal} apart by named operators only."
    )
    return 0 if explained == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
