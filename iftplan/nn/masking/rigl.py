"""RigL: drop by magnitude, grow by the dense gradient (Evci et al., arXiv 1911.11134, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iftplan.nn.masking.algorithm import Order, Scores
from iftplan.nn.masking.drop_grow import drop_grow
from iftplan.nn.masking.layer import Change, Layer
from iftplan.schedules import Cosine, Schedule, Updates


@dataclass(frozen=True, slots=True)
class RigL:
    """Rigged lottery.

    Attributes:
        updates: when masks change; the paper ends at 75 % of training and takes ΔT = 100.
        fraction: f_t over the schedule; the paper's is a cosine from α = .3.
        order: whether an update replaces the optimizer's step (the paper) or follows it.
        regrow: whether what was just dropped may grow back at once.
        keep_values: whether a weight dropped and grown back in one update keeps its value (google/rigl does); else
            it restarts at 0.
    """

    updates: Updates
    fraction: Schedule = Cosine()  # noqa: RUF009  (a frozen value)
    order: Order = Order.AFTER
    regrow: bool = True
    keep_values: bool = True

    scores = Scores.GRADIENT
    starts_dense = False
    crosses_layers = False

    def due(self, step: int) -> bool:
        """Every ΔT steps of the schedule."""
        return self.updates.due(step)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """Drop by |θ|, grow by |g|."""
        fraction = self.fraction.at(self.updates.progress(step))
        return [drop_grow(x, _gradient(x), fraction, regrow=self.regrow) for x in layers]


def _gradient(layer: Layer) -> Tensor:
    assert layer.gradient is not None
    return layer.gradient
