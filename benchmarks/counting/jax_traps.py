"""Where counters of JAX go wrong: every trap of the tests, counted by iftplan and by XLA's analysis.

JAX_PLATFORMS=cpu python benchmarks/counting/jax_traps.py

XLA's number is half of the `flops` that `jax.jit(f).lower(…).cost_analysis()` gives. Prints a table in Markdown. Ends with 1
unless iftplan is exact, or names what it cannot know, on every row.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from iftplan.jaxnn.counting.measure import measure
from iftplan.jaxnn.sources.models import traceable
from tests.support.models.jax_traps import TRAPS, JaxTrap


def ours(trap: JaxTrap) -> str:
    """MACs, and what iftplan names."""
    table = measure(trap.build(), *trap.arguments)
    unknown = f" + unknown {', '.join(sorted(table.unknown))}" if table.unknown else ""
    return f"{table.macs}{unknown}{', assumed' if table.assumptions else ''}"


def truth(trap: JaxTrap) -> str:
    """The same, as it should be."""
    unknown = f" + unknown {', '.join(sorted(trap.unknown))}" if trap.unknown else ""
    return f"{trap.macs}{unknown}{', assumed' if trap.assumes else ''}"


def xla(trap: JaxTrap) -> str:
    """Half of XLA's flops before optimisation, or what it says instead."""
    model = traceable(trap.build(), trap.arguments)
    try:
        costs = jax.jit(model.function).lower(*model.arguments).cost_analysis() or {}
    except Exception as error:  # whatever an analysis raises is its answer
        return type(error).__name__
    return f"{costs['flops'] / 2:g}" if "flops" in costs else "nothing"


def main() -> int:
    print("| trap | iftplan | XLA |\n|---|---:|---:|")
    wrong = 0
    for trap in TRAPS:
        counted = ours(trap)
        wrong += counted != truth(trap)
        print(f"| {trap.name} | {counted} | {xla(trap)} |", flush=True)
    print(f"\n{len(TRAPS)} traps, {wrong} wrong", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
