"""Table 11 of the Sparse-IFT paper (arXiv 2303.11525) beside our own runs of the same structures, row by row.

    python benchmarks/training/table11.py [--out runs] [--seeds 3]
    python benchmarks/training/table11.py --data DIR --seeds 1

The paper's are ResNet-18 on CIFAR-100, trained for 200 epochs; ours are ResNet-8 of width 8 on CIFAR-10, three epochs.
So accuracies are not to be compared, and differences to the dense model of either side are what stands beside each
other. Its dense and its unstructured rows are from table 2. Runs are those of `results.py structures`; with `--data`
what is missing is made, but for structures that have no plan at these widths.
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

from iftplan.runs.results.published.results import PublishedResult, published_results

OURS = EXPERIMENTS["structures"]


def rows_of_the_paper() -> list[PublishedResult]:
    """Table 11, between the dense model and what RigL makes of unstructured masks."""
    found = [x for x in published_results("CIFAR-100") if x.model == "ResNet-18"]
    second = [x for x in found if x.table == "2"]
    return [
        *(x for x in second if x.method == "dense"),
        *(x for x in found if x.table == "11"),
        *(x for x in second if x.method == "rigl"),
    ]


def arm_of(row: PublishedResult) -> Arm:
    """Our run of the same structure."""
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
    unstructured = "unstructured" if published.transform == "wide" else ""
    inside = {True: "non-linear", False: "linear", None: unstructured}[published.nonlinear]
    ours = found.loc[arm.title] if arm.title in found.index else {}
    return {
        "structure": " ".join(filter(None, (published.transform, published.mask or inside))),
        "sparsity": f"{float(published.sparsity):g}",
        "paper": f"{published.value:.1f}",
        "paper, against dense": "" if arm == DENSE else f"{published.value - dense:+.1f}",
        "ours": ours.get("accuracy", "–"),
        "ours, against dense": ours.get("against dense", "–"),
        "seeds": str(ours.get("seeds", "–")),
        "training MACs": ours.get("training MACs", "–"),
    }


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
    parser.add_argument("--data", help="without it, the table of the runs that there are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    given = parser.parse_args()
    published = rows_of_the_paper()
    arms = dict.fromkeys(arm_of(row) for row in published)
    ours = [x for arm in arms for x in made(arm, given.seeds, given.out, given.data)]
    print(beside(published, ours).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
