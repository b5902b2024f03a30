"""Gradual magnitude pruning: from dense to the plan's counts along a cubic (Zhu and Gupta, arXiv 1710.01878)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from iftplan.nn.masking.algorithms.base import Asked, Order, Scheduled, Scores
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding
from iftplan.runs.cautions import schedule_cautions
from iftplan.runs.schedules import left_at


@dataclass(frozen=True, slots=True)
class Gradual(Scheduled):
    """Gradual magnitude pruning (arXiv 1710.01878): each update keeps the largest |θ|; density falls along a cubic.

    Pruned weights stay zero. The last update is at `end` and leaves the number of weights that the plan has.

    Attributes:
        order: whether an update replaces the optimizer's step or follows it.
    """

    order: Order = Order.AFTER

    name = "gradual"
    scores = Scores.NONE
    starts_dense = True
    keep_values = True
    crosses_layers = False

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule."""
        return cls(asked.updates, asked.order)

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about the schedule, which has to arrive.

        Args:
            steps: of the run.
            rate: the learning rate by step, where it is known in advance.
        """
        return schedule_cautions(self.updates, steps, rate=rate, arrives=True)

    def due(self, step: int) -> bool:
        """Whether masks change at that step: every ΔT steps of the schedule, and at its end."""
        return self.updates.due(step) or step == self.updates.last

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the largest |θ|, as many as the cubic schedule allows."""
        masks = [x.largest(excluding(x.magnitude, ~x.mask), self.units(x, step)) for x in layers]
        return [Change(mask, torch.zeros_like(mask)) for mask in masks]

    def units(self, layer: Layer, step: int) -> int:
        """Units of each row that stay after an update at that step: exactly the target at the end."""
        return min(layer.active, left_at(self.updates, step, layer.units, layer.target))
