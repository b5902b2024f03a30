"""Paired seeds of dense, static, SET and RigL, and one seed of each other family: runs what is missing, prints the table.

    python benchmarks/results.py cifar10 --data DIR [--seeds 5] [--out runs]
    python benchmarks/results.py shakespeare --data input.txt

Every run is one `iftplan train` in a process of its own, printed before it starts; a run that has its result.json is not
made again, and an interrupted one is continued. Seeds are paired: the same seed is the same order of the data in
every arm, so that differences to the dense control are taken seed by seed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

EXPERIMENTS = {
    "cifar10": "--recipe cifar10-resnet8 --epochs 3 --set method.interval=30",
    "shakespeare": (
        "--recipe shakespeare-gpt --steps 250 --set method.interval=8 --set training.batch_size=16 "
        "--set data.test_fraction=0.05 --set training.eval_interval=250 --set training.checkpoint_interval=250"
    ),
}
METHODS = ("dense", "static", "set", "rigl")
FAMILIES = ("parallel", "factorized", "doped")


@dataclass(frozen=True, slots=True)
class Arm:
    """One kind of run."""

    method: str
    transform: str = "wide"

    @property
    def title(self) -> str:
        if self.method == "dense":
            return "dense"
        return self.transform if self.method == "densified" else f"{self.transform}, {self.method}"

    @property
    def options(self) -> list[str]:
        family = [] if self.transform == "wide" else ["--set", f"plan.transform={self.transform}"]
        return ["--method", self.method, *family]


def arms(seed: int) -> Iterator[Arm]:
    """Those that are run with a seed: the families with the first one only."""
    yield from (Arm(method) for method in METHODS)
    if seed == 0:
        yield from (Arm("rigl", family) for family in FAMILIES)
        yield Arm("densified", "lowrank")  # its members have no masks


def run(experiment: str, data: str, arm: Arm, seed: int, out: Path) -> dict[str, Any]:
    """The result of one run, made or continued where it is missing."""
    directory = out / f"{experiment}-{arm.title.replace(', ', '-')}-{seed}"
    record = directory / "result.json"
    if not record.exists():
        command = [sys.executable, "-m", "iftplan", "train", "--out", str(directory)]
        if (directory / "run.json").exists():
            command.append("--resume")
        else:
            command += [
                *shlex.split(EXPERIMENTS[experiment]),
                "--data",
                data,
                "--seed",
                str(seed),
                *arm.options,
            ]
        print("$ iftplan", shlex.join(command[3:]), file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"arm": arm.title, "seed": seed, **json.loads(record.read_text())}


def table(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Mean ± standard error of each arm, and of its difference to the dense run of the same seed."""
    frame = pd.DataFrame(results)
    name = frame["metric_name"].iloc[0]
    scale = 100 if name == "accuracy" else 1
    frame["value"] = frame["metric"] * scale
    dense = frame[frame["method"] == "dense"].set_index("seed")["value"]
    frame["difference"] = frame["value"] - frame["seed"].map(dense)
    rows = []
    for title, group in frame.groupby("arm", sort=False):
        rows.append(
            {
                "arm": title,
                "seeds": len(group),
                name: mean_and_error(group["value"]),
                "against dense": "" if title == "dense" else mean_and_error(group["difference"], signed=True),
                "non-zeros": group["nnz"].iloc[0] or "all",
                "of": group["maskable_weights"].iloc[0] or "",
                "forward MACs": f"{group['forward_macs'].iloc[0]:,}".replace(",", " "),
                "training MACs": f"{group['train_ratio'].mean():.4f}×",
                "ITOP": f"{group['itop'].mean():.3f}",
            }
        )
    return pd.DataFrame(rows)


def mean_and_error(values: pd.Series, *, signed: bool = False) -> str:
    mean = f"{values.mean():+.2f}" if signed else f"{values.mean():.2f}"
    return f"{mean} ± {values.sem():.2f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    given = parser.parse_args()
    found = [
        run(given.experiment, given.data, arm, seed, given.out)
        for seed in range(given.seeds)
        for arm in arms(seed)
    ]
    print(table(found).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
