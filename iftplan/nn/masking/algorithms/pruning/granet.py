"""Gradual pruning with regeneration at every update (GraNet, Liu et al., arXiv 2106.10404)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, Self

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Asked, Order, Scheduled, Scores
from iftplan.nn.masking.algorithms.exchange.drop_grow import drop_grow
from iftplan.nn.masking.algorithms.exchange.exchange import annealing
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding, top_k_mask
from iftplan.runs.cautions import schedule_cautions
from iftplan.runs.schedules import Cosine, Schedule, left_at


@dataclass(frozen=True, slots=True)
class GraNet(Scheduled):
    """Gradual pruning with zero-cost neuroregeneration (arXiv 2106.10404, section 3).

    Every update keeps the largest |θ|, along a cubic; then a part r of what is left makes room for as many weights with
    the largest dense gradients, weight by weight, where what was just dropped may come back.

    Attributes:
        fraction: r over the schedule; the authors' is a cosine from .5.
        order: whether an update replaces the optimizer's step or follows it.
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" prunes the smallest of all weights
            together, as the paper does, and keeps their total only.
        initial: sparsity at the start: 0 is the paper's dense-to-sparse, .5 its sparse-to-sparse training. Weights
            beyond the plan's are drawn at random, in proportion to the plan's counts.
        keep_values: whether a weight dropped and grown back in one update keeps its value; else it restarts at 0.

    Raises:
        InputError: an unknown scope, or a sparsity outside of [0, 1).
    """

    fraction: Schedule = Cosine(0.5)  # noqa: RUF009  (a frozen value)
    order: Order = Order.AFTER
    scope: Literal["layer", "global"] = "layer"
    initial: float = 0.0
    keep_values: bool = True

    name = "granet"
    scores = Scores.GRADIENT
    starts_dense = True

    def __post_init__(self, interval: int | None, begin: float | None, end: float | None) -> None:
        super(GraNet, self).__post_init__(interval, begin, end)
        if self.scope not in ("layer", "global"):
            raise InputError(f"pruning over {self.scope!r} is not known; scopes are layer and global.")
        if not 0 <= self.initial < 1:
            raise InputError(f"training cannot begin at sparsity {self.initial!r}; write a number in [0, 1).")

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule."""
        config = asked.config
        return cls(
            asked.updates,
            annealing(config),
            asked.order,
            config.ranking,
            config.initial,
            config.keep_values,
        )

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about the schedule, which has to arrive.

        Args:
            steps: of the run.
            rate: the learning rate by step, where it is known in advance.
        """
        return schedule_cautions(self.updates, steps, rate=rate, arrives=True)

    @property
    def crosses_layers(self) -> bool:
        """Whether counts move between layers: where all weights are pruned together."""
        return self.scope == "global"

    def due(self, step: int) -> bool:
        """Whether masks change at that step: every ΔT steps of the schedule, and at its end."""
        return self.updates.due(step) or step == self.updates.last

    def opened(self, units: Sequence[int], targets: Sequence[int], rows: Sequence[int]) -> list[int]:
        """Units of each row that training begins with, layer by layer: the plan's, multiplied until the sparsity is met.

        Args:
            units: how many there are in a row.
            targets: how many of them stay in the end.
            rows: how many rows there are.
        """
        if not self.initial:
            return list(units)
        every = [n * count for n, count in zip(units, rows, strict=True)]
        kept = [k * count for k, count in zip(targets, rows, strict=True)]
        wanted, times = (1 - self.initial) * sum(every), 1.0
        full: set[int] = set()
        while rest := [i for i in range(len(units)) if i not in full and targets[i]]:
            times = max(1.0, (wanted - sum(every[i] for i in full)) / sum(kept[i] for i in rest))
            more = {i for i in rest if targets[i] * times >= units[i]}
            if not more:
                break
            full |= more
        return [
            n if i in full else ceil(round(k * times, 6))
            for i, (n, k) in enumerate(zip(units, targets, strict=True))
        ]

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks: prune by |θ|, then drop by |θ| and grow by |g|; a weight without a gradient is only pruned."""
        share = self.fraction.at(self.updates.progress(step))
        pruned = [replace(x, mask=mask) for x, mask in zip(layers, self._pruned(layers, step), strict=True)]
        return [
            Change(x.mask, torch.zeros_like(x.mask))
            if x.gradient is None
            else drop_grow(x, x.gradient, share)
            for x in pruned
        ]

    def _pruned(self, layers: Sequence[Layer], step: int) -> list[Tensor]:
        initial = self.opened(
            [x.units for x in layers], [x.target for x in layers], [len(x.mask) for x in layers]
        )
        magnitudes = [excluding(x.magnitude, ~x.mask) for x in layers]
        if self.scope == "layer":
            return [
                x.largest(m, min(x.active, left_at(self.updates, step, n, x.target)))
                for x, m, n in zip(layers, magnitudes, initial, strict=True)
            ]
        active = sum(int(x.mask.count_nonzero()) for x in layers)
        left = left_at(self.updates, step, sum(initial), sum(x.target for x in layers))
        chosen = top_k_mask(torch.cat([m.reshape(1, -1) for m in magnitudes], 1), min(active, left)).view(-1)
        parts = torch.split(chosen, [m.numel() for m in magnitudes])
        return [part.view(m.shape) for part, m in zip(parts, magnitudes, strict=True)]
