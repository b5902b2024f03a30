"""SET: drop by magnitude, grow at random (Mocanu et al., 2018, arXiv 1707.04780)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iftplan.nn.masking.algorithm import Order, Scores
from iftplan.nn.masking.drop_grow import drop_grow
from iftplan.nn.masking.layer import Change, Layer
from iftplan.schedules import Cosine, Schedule, Updates


@dataclass(frozen=True, slots=True)
class SET:
    """Sparse evolutionary training; no gradient is looked at, so that no step costs more than another.

    Attributes:
        updates: when masks change.
        fraction: f_t over the schedule (the paper drops a constant .3).
        order: whether an update replaces the optimizer's step or follows it.
        regrow: whether what was just dropped may grow back at once; in the paper only the inactive can grow.
        keep_values: whether a weight dropped and grown back in one update keeps its value (google/rigl does); else
            it restarts at 0.
    """

    updates: Updates
    fraction: Schedule = Cosine()  # noqa: RUF009  (a frozen value)
    order: Order = Order.AFTER
    regrow: bool = False
    keep_values: bool = True

    scores = Scores.NONE
    starts_dense = False
    crosses_layers = False

    def due(self, step: int) -> bool:
        """Every ΔT steps of the schedule."""
        return self.updates.due(step)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """Drop by |θ|, grow uniformly."""
        fraction = self.fraction.at(self.updates.progress(step))
        return [drop_grow(x, _random(x), fraction, regrow=self.regrow) for x in layers]


def _random(layer: Layer) -> Tensor:
    # drawn on the CPU: the same numbers on every device
    return torch.rand(layer.mask.shape, generator=layer.generator).to(layer.mask.device)
