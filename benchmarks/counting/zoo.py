"""Every zoo model in every family: planned, built, and measured by three engines.

    python benchmarks/counting/zoo.py [--models resnet18,gpt3-small] [--families wide,parallel] [--sparsities 0.5,0.75,0.9]

One row per plan: the ratio in the closed scope, what each engine counts with the plan's masks applied, and
whether all of them are the same integer. fvcore needs real tensors for models with convolutions; where it says
that they do not fit, the row says so.
"""

from __future__ import annotations

import argparse
import time

import torch

import iftplan as ift
from iftplan.base.errors import InfeasibleError, MeasureError
from iftplan.base.units import count, decimal
from iftplan.models.spec import ModelSpec
from iftplan.models.zoo.entries import ZOO
from iftplan.nn.application.structure import skeleton_
from iftplan.nn.counting.measure import measure
from iftplan.nn.sources import build
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

ENGINES = ("meta", "flop_counter", "fvcore")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(ZOO))
    parser.add_argument("--families", default="wide,parallel")
    parser.add_argument("--sparsities", default="0.5,0.75,0.9")
    parser.add_argument("--scope", default="layers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.models.split(","):
        for family in given.families.split(","):
            spec = ift.read_model(f"zoo:{name}", widths=family in ("wide", "lowrank", "nm"))
            for sparsity in given.sparsities.split(","):
                started = time.perf_counter()
                row = (name, family, sparsity, *outcome(spec, family, sparsity, given.scope))
                rows.append((*row, f"{time.perf_counter() - started:.1f}"))
                print(*rows[-1], sep=" | ", flush=True)
    columns = ("model", "family", "sparsity", ">ratio", ">MACs, scope model", "engines", ">seconds")
    print_table(Table(columns, tuple(rows), f"scope {given.scope}"))


def outcome(spec: ModelSpec, family: str, sparsity: str, scope: str) -> tuple[str, str, str]:
    try:
        plan = ift.plan(spec, family, sparsity, scope=scope)
    except InfeasibleError as error:
        return "infeasible", "", str(error)
    model = skeleton_(plan, build(spec.source))
    tables, missing = [], []
    for engine in ENGINES:
        try:
            tables.append(measure(model, plan.inputs, engine=engine))
        except MeasureError as error:
            missing.append(f"{engine}: {error}")
    report = ift.audit(plan, tables)
    agreed = (
        "equal" if report.passed and len(set(report.counters.values())) == 1 else "; ".join(report.problems)
    )
    opinions = f"{agreed} ({', '.join(report.counters)})"
    return decimal(plan.ratio(plan.scope), 9), count(report.counters["meta"]), "; ".join([opinions, *missing])


if __name__ == "__main__":
    main()
