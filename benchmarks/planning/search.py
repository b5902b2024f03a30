"""Searches beside chance: hypervolumes at equal trials, the median and each of several seeds.

    python benchmarks/planning/search.py [--trials 16,32,64] [--seeds 5] [--models digits-cnn,resnet18-cifar]

Plans of five families, three distributions and all sparsities from 0.3 to 0.95: many masks at few forward MACs.
All points of a model at one number of trials share one box, so that seeds and samplers compare.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from fractions import Fraction

import torch

import iftplan as ift
from iftplan.report.table import Table
from iftplan.report.terminal import print_table
from iftplan.runs.sweeps.grid import Grid
from iftplan.runs.sweeps.search import SamplerName, planned_objectives, planned_search, shares, space_of

SAMPLERS: tuple[SamplerName, ...] = ("random", "nsga2", "tpe")
FAMILIES = ("wide", "parallel", "factorized", "doped", "none")
ENDS = (Fraction(3, 10), Fraction(95, 100))


def compared(name: str, trials: int, seeds: range) -> Iterator[tuple[str, ...]]:
    """A row for each sampler: its median, how often it beat chance at the same seed, and all seeds."""
    specs = {name: ift.read_model(f"zoo:{name}")}
    space = space_of(Grid((name,), FAMILIES, ENDS, ("uniform", "er", "erk")))
    found = {}
    for sampler in SAMPLERS:
        for seed in seeds:
            rows = planned_search(space, sampler, trials, specs, seed=seed)
            found[f"{sampler} {seed}"] = [p for row in rows if (p := planned_objectives(row))]
    share = shares(found)
    for sampler in SAMPLERS:
        mine = [share[f"{sampler} {seed}"] for seed in seeds]
        wins = sum(share[f"{sampler} {seed}"] > share[f"random {seed}"] for seed in seeds)
        each = "  ".join(f"{value:.4f}" for value in mine)
        won = "" if sampler == "random" else f"{wins} of {len(seeds)}"
        yield name, str(trials), sampler, f"{statistics.median(mine):.4f}", won, each


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", default="16,32,64", help="several, each by itself")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", default="digits-cnn,resnet18-cifar")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = tuple(
        row
        for name in asked.models.split(",")
        for trials in map(int, asked.trials.split(","))
        for row in compared(name, trials, range(asked.seeds))
    )
    columns = ("model", ">trials", "search", ">median hypervolume", ">beat chance", "every seed")
    print_table(Table(columns, rows, "searches beside chance, at equal trials"))


if __name__ == "__main__":
    main()
