"""What RigL, SET and SRigL share: every so often a part f_t of the active weights makes room for as many others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from iftplan.nn.masking.algorithms.base import Order
from iftplan.nn.masking.algorithms.drop_grow import drop_grow
from iftplan.nn.masking.layer import Change, Layer
from iftplan.runs.schedules import Cosine, Schedule, Updates


@dataclass(frozen=True, slots=True)
class Exchange:
    """Steps at which weights are exchanged, and the part of them.

    Attributes:
        updates: when; the papers end at 75 % of training and take ΔT = 100.
        fraction: f_t over the schedule; RigL's is a cosine from α = .3, SET's a constant .3.
        order: whether an update replaces the optimizer's step (RigL's paper) or follows it.
    """

    updates: Updates
    fraction: Schedule = Cosine()  # noqa: RUF009  (a frozen value)
    order: Order = Order.AFTER

    starts_dense = False
    crosses_layers = False

    def due(self, step: int) -> bool:
        """Whether masks change at that step: every ΔT steps of the schedule."""
        return self.updates.due(step)

    def share(self, step: int) -> float:
        """Part f_t of the active weights that an update at that step drops."""
        return self.fraction.at(self.updates.progress(step))


@dataclass(frozen=True, slots=True)
class DropGrow(Exchange):
    """Algorithm that drops by magnitude; what it grows by, a method says with `growth`.

    Attributes:
        regrow: whether what was just dropped may grow back at once.
        keep_values: whether a weight dropped and grown back in one update keeps its value (google/rigl does); else
            it restarts at 0.
    """

    regrow: bool = True
    keep_values: bool = True

    def growth(self, layer: Layer) -> Tensor:
        """Scores by which units grow, (rows, units)."""
        raise NotImplementedError

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks: drop by |θ|, grow by the method's scores."""
        share = self.share(step)
        return [drop_grow(x, self.growth(x), share, regrow=self.regrow) for x in layers]
