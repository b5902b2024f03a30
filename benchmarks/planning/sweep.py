"""Sweeps: plans a minute, beside a loop over one plan at a time and the floor, and the memory that the table takes.

    python benchmarks/planning/sweep.py [--plans 10000]

The peer is a loop over `iftplan.plan`, each call by itself; the floor is log2 of the number of masks alone, for the
layers and counts of one plan, without which no row can be. ResNet-50 has 54 layers, GPT-3 1.3B 99 and 24 products.
"""

from __future__ import annotations

import argparse
import resource
import time
from contextlib import suppress
from fractions import Fraction
from itertools import islice

import iftplan as ift
from iftplan.masks.cardinality import log2_choose
from iftplan.models.spec import ModelSpec
from iftplan.report.table import Table
from iftplan.report.terminal import print_table
from iftplan.runs.sweeps.frame import frame
from iftplan.runs.sweeps.grid import PLANNED, Grid, planned_rows

FAMILIES = ("wide", "parallel", "factorized", "doped", "none")
DISTRIBUTIONS = ("uniform", "er", "erk")


def grid(name: str, plans: int) -> Grid:
    """Five families, three distributions, and as many sparsities from 0.1 to 0.95 as make up the number."""
    count = -(-plans // (len(FAMILIES) * len(DISTRIBUTIONS)))
    sparsities = tuple(Fraction(1, 10) + Fraction(85, 100) * i / max(count - 1, 1) for i in range(count))
    return Grid((name,), FAMILIES, sparsities, DISTRIBUTIONS)


def measured(name: str, plans: int) -> tuple[str, ...]:
    spec = ift.read_model(f"zoo:{name}")
    points = grid(name, plans)
    began, cpu = time.perf_counter(), time.process_time()
    rows = list(islice(planned_rows({name: spec}, points.plans()), plans))
    table = frame(rows)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    memory = table.memory_usage(deep=True).sum() / 2**20
    fine = sum(row.outcome == PLANNED for row in rows)
    each = cpu / plans
    return (
        name, f"{plans}", f"{fine}", f"{wall:.1f}", f"{cpu:.1f}", f"{60 * plans / cpu:.0f}", f"{memory:.1f}",
        f"{peer(spec, points, plans) / each:.1f}", f"{each / floor(spec):.1f}",
    )  # fmt: skip


def peer(spec: ModelSpec, points: Grid, plans: int) -> float:
    """CPU seconds a plan of a loop over the public function, on a hundred of the same points."""
    some = list(islice(points.plans(), 0, plans, max(1, plans // 100)))
    began = time.process_time()
    for asked in some:
        family = None if asked.transform == "none" else asked.transform
        with suppress(ift.InfeasibleError):
            ift.plan(spec, family, asked.sparsity, distribution=asked.distribution)
    return (time.process_time() - began) / len(some)


def floor(spec: ModelSpec) -> float:
    """CPU seconds of the mask counts of one plan."""
    planned = ift.plan(spec, "wide", "3/4", scope="matrices")
    masked = [(layer.capacity, layer.nnz) for layer in planned.layers if layer.maskable]
    began = time.process_time()
    for _ in range(20):
        for capacity, nnz in masked:
            log2_choose(capacity, nnz)
    return (time.process_time() - began) / 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plans", type=int, default=10_000, help="of ResNet-50; a tenth of GPT-3 1.3B")
    plans = parser.parse_args().plans
    rows = (measured("resnet50", plans), measured("gpt3-1.3b", max(1, plans // 10)))
    columns = (
        "model", ">plans", ">feasible", ">seconds", ">CPU seconds", ">plans a CPU minute", ">table, MiB",
        ">× faster than a loop", ">× floor",
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print_table(
        Table(columns, rows, "many plans", (f"peak of the process, PyTorch included: {peak:.0f} MiB",))
    )


if __name__ == "__main__":
    main()
