"""What masks add to training: steps and mask updates of every method, as ratios to the same network without masks.

    python benchmarks/speed/masking.py [--rounds 31] [--models resnet8-cifar,gpt-char] [--methods static,RigL] [--sparsity 3/4]

Each network is a Sparse Wide plan of a bundled model, made real. In every round each arm takes one step, so that
whatever else the machine does falls on all alike; ratios are of one round's CPU seconds on one thread, and their
median is shown. "unmasked, again" is a second copy of the reference: what it differs from 1 is noise. The update
column is one step with a mask update more than the reference step; per step it is spread over ΔT = 100.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

import iftplan as ift
from iftplan.nn import SET, Gradual, Masking, Order, RigL, Saliency, Static, apply, build, masked_weights
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masking.factors import MaskFactors
from iftplan.nn.masks.top_k import top_k_mask
from iftplan.nn.meta.inputs import make_inputs
from iftplan.report.table import Table
from iftplan.report.terminal import print_table
from iftplan.runs.schedules import Updates

BATCH = {"resnet8-cifar": 32, "gpt-char": 2}
OFTEN = Updates(end=10**6, interval=10, at_begin=True)
METHODS: Mapping[str, Algorithm] = {
    "static": Static(),
    "SET": SET(OFTEN),
    "RigL": RigL(OFTEN),
    "RigL replacing": RigL(OFTEN, order=Order.REPLACE),
    "GMP": Gradual(OFTEN),
    "SNIP": Saliency(),
}


@dataclass(eq=False)
class Arm:
    """One copy of a network in training."""

    network: nn.Module
    inputs: tuple[Tensor, ...]
    method: Algorithm | None
    fused: bool

    def __post_init__(self) -> None:
        convolutions = any(isinstance(m, nn.Conv2d) for m in self.network.modules())
        make = optim.SGD if convolutions else optim.AdamW
        # plain AdamW on a CPU takes ten times longer for the root of a second moment that is zero, as all are off the masks
        options = {"momentum": 0.9} if convolutions else {"fused": self.fused}
        self.optimizer = make(self.network.parameters(), lr=1e-4, **options)
        self.masks = None if self.method is None else Masking(self.network, self.optimizer, self.method)

    def step(self) -> tuple[float, bool]:
        """CPU seconds of one step, and whether masks were updated in it."""
        before = self.masks.exploration.updates if self.masks else 0
        started = time.process_time()
        self.optimizer.zero_grad()
        output = self.network(*self.inputs)
        getattr(output, "logits", output).square().mean().backward()
        if self.masks is not None:
            self.masks.step()
        self.optimizer.step()
        seconds = time.process_time() - started
        return seconds, self.masks is not None and self.masks.exploration.updates > before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--models", default="resnet8-cifar,gpt-char")
    parser.add_argument("--sparsity", default="3/4")
    parser.add_argument("--plain-adamw", action="store_true", help="AdamW as it comes, not fused")
    parser.add_argument("--methods", default=",".join(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in given.models.split(","):
        arms = arms_of(name, given.sparsity, given.methods.split(","), fused=not given.plain_adamw)
        steps(name, arms, given.rounds)
        products(name, next(reversed(arms.values())), given.rounds)
    selections(given.rounds)


def arms_of(name: str, sparsity: str, methods: list[str], *, fused: bool) -> dict[str, Arm]:
    spec = ift.read_model(f"zoo:{name}")
    plan = ift.plan(spec, "wide", sparsity)
    args, _ = make_inputs(spec.inputs, "cpu")
    batch = BATCH.get(name, 4)
    inputs = tuple(x.expand(batch, *x.shape[1:]).clone() for x in args)
    inputs = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in inputs)

    def arm(method: Algorithm | None) -> Arm:
        starts_dense = method is not None and method.starts_dense
        network = apply(plan, build(spec.source, device="cpu"), dense_start=starts_dense)
        return Arm(network.train(), copy.deepcopy(inputs), method, fused)

    plain = {"unmasked": arm(None), "unmasked, again": arm(None)}
    return plain | {method: arm(METHODS[method]) for method in methods}


def steps(name: str, arms: Mapping[str, Arm], rounds: int) -> None:
    ordinary: dict[str, list[float]] = {arm: [] for arm in arms}
    updating: dict[str, list[float]] = {arm: [] for arm in arms}
    for arm in arms.values():
        arm.step()  # the first step makes optimizer state
    order = list(arms)
    for i in range(rounds):
        taken = {arm: arms[arm].step() for arm in (*order[i % len(order) :], *order[: i % len(order)])}
        reference = taken["unmasked"][0]
        for arm, (seconds, updated) in taken.items():
            (updating if updated else ordinary)[arm].append(seconds / reference)
    rows = []
    for arm, ratios in ordinary.items():
        extra = statistics.median(updating[arm]) - statistics.median(ratios) if updating[arm] else None
        rows.append(
            (
                arm,
                f"{statistics.median(ratios):.3f}",
                "" if extra is None else f"{extra:.2f}",
                "" if extra is None else f"{statistics.median(ratios) + extra / 100:.3f}",
            )
        )
    weights = sum(w.mask.numel() for w in masked_weights(arms["unmasked"].network))
    columns = ("method", ">× unmasked step", ">update, in steps", ">× with ΔT = 100")
    print_table(Table(columns, tuple(rows), f"{name}: {weights} masked weights, {rounds} interleaved rounds"))


def ratios(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median over rounds of each one's CPU seconds over the first one's."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for function in work.values():
        function()
    for _ in range(rounds):
        seconds = {}
        for name, function in work.items():
            started = time.process_time()
            function()
            seconds[name] = time.process_time() - started
        reference = next(iter(seconds.values()))
        for name, value in seconds.items():
            found[name].append(value / reference)
    return {name: statistics.median(values) for name, values in found.items()}


def products(name: str, arm: Arm, rounds: int) -> None:
    """Gradients held at zero by our products, and by filling where a boolean says so."""
    weights = list(masked_weights(arm.network))
    gradients = [torch.randn_like(w.parameter) for w in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.parameter.grad = gradient
    factors, offs = MaskFactors(weights), [~w.mask for w in weights]

    def fill() -> None:
        for gradient, off in zip(gradients, offs, strict=True):
            gradient.masked_fill_(off, 0)

    found = ratios({"multiply (ours)": factors.apply_, "masked_fill": fill}, rounds)
    print_table(Table(("gradients", ">× ours"), tuple((k, f"{v:.2f}") for k, v in found.items()), name))


def selections(rounds: int) -> None:
    """A quarter of a row's weights: our selection, top-k and a sort, each as a mask."""
    columns = ("weights", ">ours", ">topk", ">topk, sorted", ">sort")
    rows = []
    for units in (9_216, 147_456, 589_824, 2_359_296):
        scores = torch.randn(1, units).abs()
        found = ratios(
            {
                "ours": lambda s=scores, k=units // 4: top_k_mask(s, k),
                "topk": lambda s=scores, k=units // 4: _marked(s, s.view(-1).topk(k, sorted=False).indices),
                "topk, sorted": lambda s=scores, k=units // 4: _marked(s, s.view(-1).topk(k).indices),
                "sort": lambda s=scores, k=units // 4: _marked(s, s.view(-1).argsort(descending=True)[:k]),
            },
            rounds,
        )
        rows.append((str(units), *(f"{v:.2f}" for v in found.values())))
    print_table(Table(columns, tuple(rows), "selecting a quarter, × ours"))


def _marked(scores: Tensor, indices: Tensor) -> Tensor:
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask.view(-1)[indices] = True
    return mask


if __name__ == "__main__":
    main()
