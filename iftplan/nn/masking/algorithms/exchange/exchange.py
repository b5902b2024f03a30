"""What RigL, SET and SRigL share: every so often a part f_t of the active weights makes room for as many others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, assert_never

from torch import Tensor

from iftplan.nn.masking.algorithms.base import Asked, Order, Scheduled
from iftplan.nn.masking.algorithms.exchange.drop_grow import drop_grow
from iftplan.nn.masking.layer import Change, Layer
from iftplan.runs.cautions import schedule_cautions
from iftplan.runs.schedules import Constant, Cosine, Exponential, Linear, Power, Schedule
from iftplan.runs.settings import MethodConfig


@dataclass(frozen=True, slots=True)
class Exchange(Scheduled):
    """Steps at which weights are exchanged, and the part of them.

    Attributes:
        fraction: f_t over the schedule; RigL's is a cosine from α = .3, SET's a constant .3.
        order: whether an update replaces the optimizer's step (RigL's paper) or follows it.
    """

    fraction: Schedule = Cosine()  # noqa: RUF009  (a frozen value)
    order: Order = Order.AFTER

    starts_dense = False
    crosses_layers = False

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about the schedule of the exchanges.

        Args:
            steps: of the run.
            rate: the learning rate by step, where it is known in advance.
        """
        return schedule_cautions(self.updates, steps, rate=rate)

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

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule; what was dropped may grow back if the run says so, or the paper."""
        config = asked.config
        regrow = cls(asked.updates).regrow if config.regrow is None else config.regrow
        return cls(asked.updates, annealing(config), asked.order, regrow, config.keep_values)

    def growth(self, layer: Layer) -> Tensor:
        """Scores by which units grow, (rows, units); every algorithm of this kind has its own."""
        raise NotImplementedError

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks: drop by |θ|, grow by the method's scores."""
        share = self.share(step)
        return [drop_grow(x, self.growth(x), share, regrow=self.regrow) for x in layers]


def annealing(config: MethodConfig) -> Schedule:
    """Schedule of the part f_t of the active weights that an update drops."""
    match config.annealing:
        case "cosine":
            return Cosine(config.fraction)
        case "constant":
            return Constant(config.fraction)
        case "linear":
            return Linear(config.fraction)
        case "power":
            return Power(config.fraction, config.exponent)
        case "exponential":
            return Exponential(config.fraction, config.exponent)
        case _:
            assert_never(config.annealing)
