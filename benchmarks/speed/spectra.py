"""Time of the spectra of a network's masks, as ratios to a training step and to one mask update of RigL.

    python benchmarks/speed/spectra.py [--model resnet18-cifar] [--sparsity 3/4] [--batch 32] [--rounds 3]

The network is a Sparse Wide plan made real. In every round each arm runs once, so that whatever else the machine does falls on
all alike; ratios are of one round's CPU seconds on one thread, and their median is shown. The update is a step of RigL with a
mask update minus one without.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn, optim

import iftplan as ift
from iftplan.nn import Masking, RigL, apply, build, masked_weights, spectra
from iftplan.report.table import Table
from iftplan.report.terminal import print_table
from iftplan.runs.schedules import Updates


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


class Training:
    """Network under RigL, whose every second step changes masks."""

    def __init__(self, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.network, self.inputs = network, inputs
        self.optimizer = optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
        self.masks = Masking(network, self.optimizer, RigL(Updates(end=10**6, interval=2)))

    def step(self) -> None:
        self.optimizer.zero_grad()
        output = self.network(*self.inputs)
        getattr(output, "logits", output).square().mean().backward()
        self.masks.step()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18-cifar")
    parser.add_argument("--sparsity", default="3/4")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    plan = ift.plan(f"zoo:{given.model}", "wide", given.sparsity)
    network = apply(plan, build(plan.model, device="cpu"))
    (made,) = plan.inputs
    inputs = (torch.randn(given.batch, *made.shape[1:]),)
    training = Training(network, inputs)
    training.step()  # allocates what the others find there
    steps, updates, measured = [], [], []
    for _ in range(given.rounds):
        times = sorted((seconds(training.step), seconds(training.step)))
        steps.append(times[0])
        updates.append(times[1] - times[0])
        measured.append(seconds(lambda: spectra(network)))
    kept = sum(int(weight.mask.count_nonzero()) for weight in masked_weights(network))
    rows = tuple(
        (name, f"{statistics.median(m / x for m, x in zip(measured, base, strict=True)):.2f}")
        for name, base in (("a training step", steps), ("a mask update alone", updates))
    )
    title = f"{given.model}, Sparse Wide at {given.sparsity}, {kept:,} kept weights: spectra of all masks".replace(
        ",", " "
    )
    print_table(Table(("over", ">times"), rows, title))


if __name__ == "__main__":
    main()
