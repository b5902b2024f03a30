"""Planning: microseconds a layer, as ratios to one symbolic solution and to one numeric closed form.

    python benchmarks/planning/planning.py [--rounds 7]

The peer is SymPy solving the same equation for each layer; the floor is evaluating the one-line closed form
k = d**(-1/2) in floating point, without any integers, masks or ledgers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import sympy

import iftplan as ift
from iftplan.families import symbols as t
from iftplan.families.builtin import FAMILIES
from iftplan.families.solver import solve
from iftplan.models.notation import parse_layer
from iftplan.report.table import Table
from iftplan.report.terminal import print_table


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    models = {name: ift.read_model(f"zoo:{name}") for name in ("resnet50", "gpt3-medium")}
    layer, density = parse_layer("conv3x3:64-128@16x16"), Fraction(1, 4)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "floor: d**-0.5": (10_000, lambda: [float(density) ** -0.5 for _ in range(10_000)]),
        "peer: sympy.solve": (20, lambda: [sympy.solve(t.k**2 * t.d - 1, t.k) for _ in range(20)]),
        "solve, one layer": (200, lambda: [solve(layer, FAMILIES["wide"], 1 - density) for _ in range(200)]),
    }
    for name, spec in models.items():
        rows_of_plan = len(spec.layers) + len(spec.products)
        for family in ("wide", "parallel"):
            work[f"plan {name}, {family}, per layer"] = (
                rows_of_plan,
                lambda spec=spec, family=family: ift.plan(spec, family, "1/2", scope="matrices"),
            )
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (repeats, function) in work.items():
            times[name].append(seconds(function) / repeats)
    middle = {name: statistics.median(values) for name, values in times.items()}
    floor, peer = middle["floor: d**-0.5"], middle["peer: sympy.solve"]
    rows = tuple((n, f"{m * 1e6:.1f}", f"{m / floor:.0f}", f"{m / peer:.4f}") for n, m in middle.items())
    columns = ("work", ">µs CPU", ">× floor", ">× sympy.solve")
    print_table(Table(columns, rows, f"planning, median of {rounds} interleaved rounds"))


if __name__ == "__main__":
    main()
