"""Iterative magnitude pruning: prune a little, train, prune again (Han et al., arXiv 1506.02626); N:M group by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import torch

from iftplan.base.errors import InputError
from iftplan.masks import NM
from iftplan.nn.masking.algorithms.base import Asked, Order, RunMethod, Scores
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding
from iftplan.runs.cautions import arrival_cautions
from iftplan.runs.schedules import check_times, known_step, step_at

ROUNDS: Final = 10
"""Rounds of pruning, where neither the run nor the structure says how many."""


@dataclass(frozen=True, slots=True)
class Iterative(RunMethod):
    """Iterative magnitude pruning (arXiv 1506.02626) in equal rounds, one at the end of each frame.

    With M - N rounds an N:M mask goes from M-1:M over M-2:M to N:M: each round takes one weight from every group.

    Pruned weights stay zero.

    Attributes:
        end: step of the last round, which leaves the number of weights that the plan has, or a fraction of training as a float.
        rounds: number of rounds.
        begin: steps of the dense phase before the first frame, or a fraction of training as a float.
        order: whether an update replaces the optimizer's step or follows it.

    Raises:
        InputError: no rounds, or more rounds than steps.
    """

    end: int | float = 0.75
    rounds: int = ROUNDS
    begin: int | float = 0
    order: Order = Order.AFTER

    name = "iterative"
    scores = Scores.NONE
    starts_dense = True
    keep_values = True
    crosses_layers = False

    def __post_init__(self) -> None:
        check_times(self.begin, self.end)
        if not (self.needs_length or 1 <= self.rounds <= self.end - self.begin):
            raise InputError(
                f"{self.rounds} rounds of pruning cannot be had from step {self.begin} to step {self.end}; there may be 1 to {max(1, self.end - self.begin)}."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's rounds, or with one weight of every N:M group at a time."""
        structure, updates = asked.structure, asked.updates
        own = max(1, structure.of - structure.kept) if isinstance(structure, NM) else ROUNDS
        return cls(updates.end, asked.config.rounds or own, updates.begin, asked.order)

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about a run that ends before masks have the plan's counts.

        Args:
            steps: of the run.
            rate: looked at by no method that arrives.
        """
        return arrival_cautions(self.arrival, steps)

    @property
    def needs_length(self) -> bool:
        """Whether pruning begins or ends at a fraction of training."""
        return isinstance(self.begin, float) or isinstance(self.end, float)

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many optimizer steps."""
        return replace(self, begin=step_at(self.begin, steps), end=step_at(self.end, steps))

    @property
    def arrival(self) -> int:
        """Step at which masks have the plan's counts."""
        return known_step(self.end)

    def due(self, step: int) -> bool:
        """Whether masks change at that step: at the end of each frame."""
        return self.done(step) > self.done(step - 1)

    def done(self, step: int) -> int:
        """Number of rounds up to that step, and with it."""
        begin, end = known_step(self.begin), known_step(self.end)
        passed = min(max(0, step - begin), end - begin)
        return passed * self.rounds // (end - begin)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the largest |θ|, as many as the round leaves."""
        masks = [x.largest(excluding(x.magnitude, ~x.mask), self.units(x, step)) for x in layers]
        return [Change(mask, torch.zeros_like(mask)) for mask in masks]

    def units(self, layer: Layer, step: int) -> int:
        """Units of each row that stay after the round at that step."""
        left = self.rounds - self.done(step)
        return min(layer.active, layer.target + -(-(layer.units - layer.target) * left // self.rounds))
