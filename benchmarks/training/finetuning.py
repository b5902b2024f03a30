"""A trained network made sparse and trained on, at equal training MACs: makes the runs that are missing, prints the table.

    python benchmarks/training/finetuning.py pruned --data DIR [--seeds 3] [--epochs 1] [--out runs]
    python benchmarks/training/finetuning.py patterns --data DIR

A dense ResNet-8 is trained on CIFAR-10 for ten epochs. `pruned` prunes it in one shot by each method at three sparsities,
and trains on with static masks or RigL; `patterns` makes it 2:4 or 1:4, in one shot or by methods that begin with every
weight. The control is the dense network, trained on. Every arm takes the steps whose training MACs are nearest to those of
`--epochs` epochs of the dense network, with the settings of the recipe; the table says their ratio. Calibration is not in
it: 256 samples take the forward passes of 256 samples for every layer, less than a thousandth of an epoch a layer.

Each run is one `iftplan prune` or `iftplan train` in a process of its own, printed before it starts; a run that has its
result is not made again, and an interrupted one is continued. Seeds are paired: each has its own dense network.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from results import mean_and_error

import iftplan as ift
from iftplan.masks import NM, parse_mask
from iftplan.nn.training.methods import algorithm_of
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.settings import MethodConfig

MODEL, RECIPE, EPOCHS = "zoo:resnet8-cifar", "cifar10-resnet8", 10
BATCH, AN_EPOCH = 128, 390
SAMPLES, INTERVAL = 256, 30


@dataclass(frozen=True, slots=True)
class Arm:
    """One way from the dense network to a sparse one.

    Attributes:
        method: as `iftplan train --method` has it.
        pruner: as `iftplan prune --method` has it; empty for arms that begin with the dense network.
        sparsity: that is planned.
        mask: structure of the masks; empty for unstructured.
        optimizer: of arms that do not take the recipe's.
        rate: its learning rate.
        decay: λ of CAST.
    """

    method: str
    pruner: str = ""
    sparsity: str = ""
    mask: str = ""
    optimizer: str = ""
    rate: float = 0.0
    decay: float = 0.0

    @property
    def title(self) -> str:
        if self.method == "dense":
            return "dense"
        goal = self.mask or self.sparsity
        how = f"{self.pruner}, then {self.method}" if self.pruner else self.method
        return f"{goal}: {how}{f', {self.optimizer}' if self.optimizer else ''}"

    @property
    def folder(self) -> str:
        return self.title.replace(": ", "-").replace(", ", "-").replace(" ", "-").replace(":", "of")

    @property
    def pruned_folder(self) -> str:
        return f"{self.mask or self.sparsity}-{self.pruner}".replace(":", "of")

    @property
    def options(self) -> list[str]:
        """What its training is asked for beside the start, the length and the seed."""
        plan = {"file": "", "transform": "none", "sparsity": self.sparsity, "mask": self.mask}
        begins_dense = not self.pruner and self.method != "dense"
        settings = {f"plan.{key}": value for key, value in plan.items()} if begins_dense else {}
        if self.method == "rigl":
            settings["method.interval"] = str(INTERVAL)
        if self.optimizer:
            settings |= {"optimizer.name": self.optimizer, "optimizer.lr": str(self.rate)}
        if self.decay:
            settings["method.pull"] = str(self.decay)
        given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return ["--method", self.method, *given]


CONTROL = Arm("dense")
PRUNERS, SPARSITIES, PATTERNS = (
    ("magnitude", "wanda", "sparsegpt"),
    ("0.5", "0.75", "0.9"),
    {"2:4": "0.5", "1:4": "0.75"},
)
CAST = (Arm("cast", decay=0.005), Arm("cast", optimizer="adams", rate=0.005, decay=0.005))
"""By SGD, where λ is a part of the gradient, and by the paper's optimizer, where weights shrink by the learning rate."""
EXPERIMENTS: Mapping[str, tuple[Arm, ...]] = MappingProxyType(
    {
        "pruned": (
            CONTROL,
            *(Arm(m, p, s) for m in ("static", "rigl") for s in SPARSITIES for p in PRUNERS),
        ),
        "patterns": (
            CONTROL,
            *(
                arm
                for mask, s in PATTERNS.items()
                for arm in (
                    *(Arm("static", p, s, mask) for p in ("magnitude", "sparsegpt")),
                    *(Arm(m, "", s, mask) for m in ("srste", "structure-decay")),
                    *(Arm(x.method, "", s, mask, x.optimizer, x.rate, x.decay) for x in CAST),
                )
            ),
        ),
    }
)


@cache
def plan_of(sparsity: str, mask: str) -> Plan:
    """Plain sparsity of the network."""
    return ift.plan(MODEL, None, sparsity or "0.5", mask=mask or None)


def macs_of(arm: Arm, steps: int) -> int:
    """Training MACs of a run of so many steps, over its batch size: the ledger of the run in closed form."""
    plan = plan_of(arm.sparsity, arm.mask)
    cost = TrainingCost.of(plan)
    if arm.method == "dense":
        return steps * cost.dense_step
    config = MethodConfig(arm.method, interval=INTERVAL)
    structure = parse_mask(plan.mask)
    algorithm: Any = algorithm_of(config, steps, structure)
    match arm.method:
        case "static":
            return steps * cost.step()
        case "rigl":
            updates = sum(bool(algorithm.due(step)) for step in range(steps))
            return (steps - updates) * cost.step() + updates * cost.step(dense_gradient=True)
        case "srste":
            return steps * cost.step(dense_gradient=True)
        case "cast":  # every weight computes until the end of its schedule
            dense = min(steps, int(algorithm.arrival))
            return dense * 3 * cost.opened + (steps - dense) * cost.step(dense_gradient=True)
        case "structure-decay":
            assert isinstance(structure, NM)
            kept = [algorithm.pattern(structure, structure.of, step)[0] for step in range(steps)]
            nnz = {n: {x: size * n // structure.of for x, size in cost.capacity.items()} for n in set(kept)}
            return sum(cost.step(nnz[n], dense_gradient=True) for n in kept)
    raise ValueError(f"the cost of {arm.method} is not known here")


def length(arm: Arm, budget: int) -> int:
    """Steps whose training MACs are nearest to a budget."""
    below, above = 0, 1
    while macs_of(arm, above) < budget:
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if macs_of(arm, middle) < budget else (below, middle)
    return min((below, above), key=lambda steps: abs(macs_of(arm, steps) - budget)) or 1


def budget_of(epochs: float) -> int:
    """Training MACs of so many epochs of the dense network, over the batch size."""
    return macs_of(CONTROL, round(epochs * AN_EPOCH))


@dataclass(frozen=True, slots=True)
class Runs:
    """Where runs lie, and what they are made from.

    Attributes:
        out: their directory.
        data: CIFAR-10; None where nothing is made.
        epochs: of the dense network, whose training MACs each arm takes.
    """

    out: Path
    data: str | None
    epochs: float

    def dense(self, seed: int) -> Path:
        return self.out / f"resnet8-dense-{seed}"

    def pruned(self, arm: Arm, seed: int) -> Path:
        return self.out / f"resnet8-{arm.pruned_folder}-{seed}"

    def tuned(self, arm: Arm, seed: int) -> Path:
        return self.out / f"resnet8-{arm.folder}-{self.epochs:g}-{seed}"

    def make(self, arm: Arm, seed: int) -> None:
        """Make what is missing of an arm: its dense network, the pruned one, and the run from there."""
        start = dense = self.dense(seed)
        self._train(dense, seed, ["--method", "dense", "--epochs", str(EPOCHS)])
        if arm.pruner:
            start = self.pruned(arm, seed)
            if not (start / "pruning.json").exists():
                structure = ["--structure", arm.mask] if arm.mask else []
                asked = ["--method", arm.pruner, "--sparsity", arm.sparsity, *structure]
                data = ["--samples", str(SAMPLES), "--data", str(self.data)]
                call(["prune", str(dense), *asked, *data, "--out", str(start)])
        steps = length(arm, budget_of(self.epochs))
        rare = [
            x
            for key in ("eval_interval", "checkpoint_interval")
            for x in ("--set", f"training.{key}={steps}")
        ]
        self._train(
            self.tuned(arm, seed), seed, ["--from", str(start), "--steps", str(steps), *rare, *arm.options]
        )

    def _train(self, directory: Path, seed: int, options: Sequence[str]) -> None:
        begun = ["--recipe", RECIPE, "--data", str(self.data), "--seed", str(seed), *options]
        if not (directory / "result.json").exists():
            asked = ["--resume"] if (directory / "run.json").exists() else begun
            call(["train", *asked, "--out", str(directory)])

    def read(self, arm: Arm, seed: int) -> dict[str, Any] | None:
        """What came of an arm; None where it has no result yet.

        Raises:
            ValueError: the run's ledger is not what its length was chosen by.
        """
        record = self.tuned(arm, seed) / "result.json"
        if not record.exists():
            return None
        found = json.loads(record.read_text())
        if found["train_macs"] != BATCH * macs_of(arm, found["steps"]):
            raise ValueError(f"{record} has other training MACs than its closed form")
        before = None
        if arm.method == "dense":
            before = json.loads((self.dense(seed) / "result.json").read_text())["metric"]
        elif arm.pruner:
            (point,) = json.loads((self.pruned(arm, seed) / "pruning.json").read_text())["points"]
            before = point["metric"]
        ratio = found["train_macs"] / (BATCH * budget_of(self.epochs))
        return {"arm": arm.title, "seed": seed, "before": before, "ratio": ratio, **found}


def call(words: Sequence[str]) -> None:
    """Run one command, and print it first."""
    print("$ iftplan", shlex.join(words), file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "iftplan", *words], check=True, stdout=subprocess.DEVNULL)


def results(arms: Sequence[Arm], seeds: int, runs: Runs) -> Iterator[dict[str, Any]]:
    """What the runs found, those that are missing made where there are data."""
    for seed in range(seeds):
        for arm in arms:
            if runs.data is not None:
                runs.make(arm, seed)
            found = runs.read(arm, seed)
            if found is not None:
                yield found


def table(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row for each arm: accuracies in percent, mean ± standard error, and differences to the control of the same seed."""
    frame = pd.DataFrame(found)
    frame["after"] = 100 * frame["metric"]
    control = frame[frame["arm"] == CONTROL.title].set_index("seed")["after"]
    frame["difference"] = frame["after"] - frame["seed"].map(control)
    rows = []
    for title, group in frame.groupby("arm", sort=False):
        before, difference = 100 * group["before"].dropna(), group["difference"].dropna()
        rows.append(
            {
                "network": title,
                "seeds": len(group),
                "at first": mean_and_error(before) if len(before) else "",
                "trained on": mean_and_error(group["after"]),
                "against dense": ""
                if title == CONTROL.title or difference.empty
                else mean_and_error(difference, signed=True),
                "forward MACs": f"{group['forward_macs'].iloc[0]:,}".replace(",", " "),
                "steps": group["steps"].iloc[0],
                "training MACs": f"{group['ratio'].mean():.4f}",
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", help="without it, the table of the runs that there are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=float, default=1.0, help="of the dense network, whose cost each arm takes"
    )
    parser.add_argument("--out", type=Path, default=Path("runs"))
    given = parser.parse_args()
    found = list(
        results(EXPERIMENTS[given.experiment], given.seeds, Runs(given.out, given.data, given.epochs))
    )
    if not found:
        raise SystemExit(f"no runs of {given.experiment} in {given.out}; give --data to make them")
    print(table(found).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
