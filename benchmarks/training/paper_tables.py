"""Tables of the Sparse-IFT paper (arXiv 2303.11525) beside our own runs of the same configurations, row by row.

    python benchmarks/training/paper_tables.py table2 [--out runs] [--seeds 5]
    python benchmarks/training/paper_tables.py table11 --data DIR --seeds 1

The paper's are ResNet-18 on CIFAR-100, trained for 200 epochs; ours are ResNet-8 of width 8 on CIFAR-10, ten epochs. So
accuracies are not to be compared, and differences to the dense model of either side are what stands beside each other.
Runs are those of `results.py table2`, `table3` and `controls`, from their folders or from the record; with `--data` what
is missing is made, but for structures that have no plan at these widths.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from results import DENSE, EXPERIMENTS, Arm, Experiment, results, table

from iftplan.runs.results.published.entries import paper_entry
from iftplan.runs.results.published.results import PublishedResult

TABLES = ("table2", "table3", "table4", "table11")
OURS = EXPERIMENTS["table2"]


def arm_of(row: PublishedResult) -> Arm:
    """Our run of the same configuration."""
    if row.transform == "dense":
        return DENSE
    method = "transposable" if row.mask else {"dense": "densified"}.get(row.method, row.method)
    return Arm(method, row.transform, row.mask, row.nonlinear is not False, str(row.sparsity))


def beside(published: Sequence[PublishedResult], ours: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Both sides of each row; a dash where there is no run of ours.

    Args:
        published: the paper's rows, its dense model among them.
        ours: results as `results.results` returns them.
    """
    dense = next(x.value for x in published if x.transform == "dense")
    found = table(ours).set_index("arm") if ours else pd.DataFrame()
    return pd.DataFrame([_row(x, dense, found) for x in published])


def _row(published: PublishedResult, dense: float, found: pd.DataFrame) -> dict[str, str]:
    arm = arm_of(published)
    ours = found.loc[arm.title] if arm.title in found.index else {}
    return {
        "family": " ".join(filter(None, (arm.transform if arm != DENSE else "dense", arm.mask, _inside(published)))),
        "method": published.method,
        "sparsity": f"{float(published.sparsity):g}",
        "paper": f"{published.value:.1f}",
        "paper, against dense": "" if arm == DENSE else f"{published.value - dense:+.1f}",
        "ours": ours.get("accuracy", "–"),
        "ours, against dense": ours.get("against dense", "–"),
        "seeds": str(ours.get("seeds", "–")),
        "training MACs": ours.get("training MACs", "–"),
    }  # fmt: skip


def _inside(published: PublishedResult) -> str:
    """Whether a non-linearity stands between two low-rank factors."""
    return "" if published.transform != "lowrank" else "non-linear" if published.nonlinear else "linear"


def made(arm: Arm, seeds: int, out: Path, data: str | None) -> list[dict[str, Any]]:
    """The arm's results; none where the command refuses to plan it."""
    try:
        return results(Experiment(OURS.task, OURS.settings, (arm,)), seeds, out, data)
    except subprocess.CalledProcessError as error:
        if error.returncode != 2:
            raise
        print(f"left out: {arm.title}", file=sys.stderr)
        return []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", help="without it, the table of the runs that there are")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    given = parser.parse_args()
    published = paper_entry(given.table).results()
    arms = dict.fromkeys(arm_of(row) for row in published)
    ours = [x for arm in arms for x in made(arm, given.seeds, given.out, given.data)]
    print(beside(published, ours).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
