"""Two tasks one after the other, on halves of the digits' classes: what is forgotten, and what it costs.

    python benchmarks/training/continual.py [--seeds 5] [--steps 150]

The first task is to tell 0 to 4 apart, the second 5 to 9; both are asked among their own five classes. The network is
`zoo:digits-cnn`, SGD with momentum in batches of 64. *Dense, in turn* trains the second task where the first ended. *Dense, two
networks* has one for each. Arms with *task masks* keep a part of the two inner convolutions for each task, chosen by an algorithm
that moves masks every 10 steps; weights of the first task stay as they are (`iftplan.nn.TaskMasks`).

*Forgetting* is the first task's accuracy after its training less that after both. *Numbers stored* are weights that some task
uses, each counted once, with what each task has of its own, over the dense network's. *Training MACs* are exact, over those of the
dense network; frozen weights need no gradients. Errors are standard errors over seeds.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.nn.training.data.digits import read_digits  # noqa: E402
from iftplan.report.table import Table  # noqa: E402
from iftplan.report.terminal import print_table  # noqa: E402
from iftplan.runs.costs.training_cost import TrainingCost  # noqa: E402

BATCH, RATE, INTERVAL = 64, 0.05, 10
TASKS = {"0 to 4": range(5), "5 to 9": range(5, 10)}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to learn two tasks.

    Attributes:
        name: for people.
        sparsity: of task masks; empty for a dense network.
        method: that moves them.
        apart: whether each task has a dense network of its own.
    """

    name: str
    sparsity: str = ""
    method: str = ""
    apart: bool = False


ARMS = (
    Arm("dense, in turn"),
    Arm("dense, two networks", apart=True),
    *(Arm(f"task masks at {s}, {m}", s, m) for s in ("3/4", "9/10") for m in ("static", "set", "rigl")),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run reached.

    Attributes:
        first: accuracy on the first task after its training.
        kept: the same after both.
        second: accuracy on the second task.
        stored: numbers stored, over the dense network's.
        ratio: training MACs over the dense network's.
    """

    first: float
    kept: float
    second: float
    stored: float
    ratio: float


class Data:
    """Halves of the digits: classes of a task, for training and for testing."""

    def __init__(self) -> None:
        train, test = read_digits(0.2)
        scaled = [(x.float() / 255 - 0.3) / 0.37 for x, _ in (train, test)]
        self.halves = {
            name: [
                (x[found], y[found])
                for x, y in zip(scaled, (train[1], test[1]), strict=True)
                for found in [torch.isin(y, torch.tensor(classes))]
            ]
            for name, classes in TASKS.items()
        }

    def batch(self, task: str, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = self.halves[task][0]
        chosen = torch.randperm(len(x), generator=drawn)[:BATCH]
        return x[chosen], y[chosen]

    @torch.no_grad()
    def accuracy(self, task: str, model: nn.Module) -> float:
        x, y = self.halves[task][1]
        own = TASKS[task]
        found = model.eval()(x)[:, own.start : own.stop].argmax(1) + own.start
        model.train()
        return float((found == y).float().mean())


def loss_of(model: nn.Module, task: str, batch: tuple[Tensor, Tensor]) -> Tensor:
    own = TASKS[task]
    return cross_entropy(model(batch[0])[:, own.start : own.stop], batch[1] - own.start)


def algorithm_of(method: str, steps: int) -> ift_nn.Algorithm:
    if method == "static":
        return ift_nn.Static()
    kind = ift_nn.SET if method == "set" else ift_nn.RigL
    return kind(interval=INTERVAL, end=steps * 3 // 4)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=5e-4)


def dense(arm: Arm, data: Data, seed: int, steps: int) -> Outcome:
    """Train a dense network on both tasks, or one on each."""
    drawn, results = torch.Generator().manual_seed(seed), []
    torch.manual_seed(seed)
    model = first = ift_nn.build("zoo:digits-cnn", device="cpu").train()
    for task in TASKS:
        if arm.apart and results:
            model = ift_nn.build("zoo:digits-cnn", device="cpu").train()
        optimizer = optimizer_of(model)
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(model, task, data.batch(task, drawn)).backward()
            optimizer.step()
        results.append(data.accuracy(task, model))
    return Outcome(results[0], data.accuracy("0 to 4", first), results[1], 2.0 if arm.apart else 1.0, 1.0)


def masked(arm: Arm, data: Data, seed: int, steps: int) -> Outcome:
    """Train both tasks in one network, with a mask for each."""
    drawn, results, macs = torch.Generator().manual_seed(seed), [], 0
    torch.manual_seed(seed)
    plan = ift.plan("zoo:digits-cnn", "none", arm.sparsity)
    model = ift_nn.apply(plan, ift_nn.build("zoo:digits-cnn", device="cpu"), seed=seed).train()
    cost, groups = TrainingCost.of(plan), ift_nn.weights_by_layer(plan, model)
    tasks = ift_nn.TaskMasks(model, seed=seed)
    for task in TASKS:
        tasks.begin_(task)
        optimizer = optimizer_of(model)
        masks = ift_nn.Masking(model, optimizer, algorithm_of(arm.method, steps), seed=seed)
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(model, task, data.batch(task, drawn)).backward()
            masks.step()
            reached = tasks.trained()
            optimizer.step()
            taken = replace(masks.taken, reached=reached)
            macs += ift_nn.step_macs(cost, groups, taken, BATCH)
            tasks.hold_()
        masks.finish()
        tasks.finish_()
        results.append(data.accuracy(task, tasks.use_(task)))
    kept = data.accuracy("0 to 4", tasks.use_("0 to 4"))
    capacity = tasks.capacity
    stored = capacity.stored / (capacity.maskable + capacity.own)
    return Outcome(results[0], kept, results[1], stored, macs / (2 * steps * BATCH * cost.dense_step))


def run(arm: Arm, data: Data, seed: int, steps: int) -> Outcome:
    """What one arm reaches with one seed."""
    return (masked if arm.sparsity else dense)(arm, data, seed, steps)


def percent(values: Sequence[float]) -> str:
    """Mean ± standard error, in percent."""
    error = f" ± {100 * stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="of each task")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, rows = Data(), []
    for arm in ARMS:
        found = [run(arm, data, seed, given.steps) for seed in range(given.seeds)]
        rows.append(
            (
                arm.name,
                percent([x.first for x in found]),
                percent([x.kept for x in found]),
                percent([x.first - x.kept for x in found]),
                percent([x.second for x in found]),
                f"{mean(x.stored for x in found):.3f}",
                f"{mean(x.ratio for x in found):.4f}",
            )
        )
    columns = (
        "arm",
        ">0 to 4 at first",
        ">after both",
        ">forgetting",
        ">5 to 9",
        ">numbers stored",
        ">training MACs",
    )
    print_table(Table(columns, tuple(rows), f"two tasks, {given.steps} steps each, {given.seeds} seeds"))


if __name__ == "__main__":
    main()
