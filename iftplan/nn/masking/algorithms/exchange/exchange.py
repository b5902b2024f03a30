"""What RigL, SET and SRigL share: every so often a part f_t of the active weights makes room for as many others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, assert_never, get_args

from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure, Unstructured
from iftplan.nn.masking.algorithms.base import Asked, Order, Scheduled, Scores
from iftplan.nn.masking.algorithms.exchange.drop_grow import drop_grow
from iftplan.nn.masking.algorithms.exchange.redistribution import Redistribution, redistributed
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

    @property
    def crosses_layers(self) -> bool:
        """Whether counts move between layers."""
        return False

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
        redistribution: by what MACs that a layer's dropped weights set free are given to layers: "none" for each its
            own, "magnitude" for mean |θ| of active weights, "nonzeros" for their number, "momentum" for the mean |m|
            that `SNFS` averages. The plan's MACs are kept; without a plan, the number of weights.

    Raises:
        InputError: an unknown redistribution, or one by averages that the method does not have.
    """

    regrow: bool = True
    keep_values: bool = True
    redistribution: Redistribution = "none"

    def __post_init__(self, interval: int | None, begin: float | None, end: float | None) -> None:
        super(DropGrow, self).__post_init__(interval, begin, end)
        choices = get_args(Redistribution)
        if self.redistribution not in choices:
            raise InputError(
                f"redistribution by {self.redistribution!r} is not known; there are {', '.join(choices)}."
            )
        if self.redistribution == "momentum" and self.scores is not Scores.AVERAGE:  # type: ignore[attr-defined]
            raise InputError(
                f"{type(self).__name__} keeps no average of gradients to redistribute by; take SNFS, or redistribution by magnitude or nonzeros."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule; what was dropped may grow back if the run says so, or the paper."""
        config = asked.config
        default = cls(asked.updates)
        regrow = default.regrow if config.regrow is None else config.regrow
        redistribution = config.redistribution or default.redistribution
        return cls(asked.updates, annealing(config), asked.order, regrow, config.keep_values, redistribution)

    @property
    def crosses_layers(self) -> bool:
        """Whether counts move between layers: where freed MACs are redistributed."""
        return self.redistribution != "none"

    @property
    def in_parts(self) -> bool:
        """Whether masks can be sharded: where every layer keeps its count."""
        return not self.crosses_layers

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on structures whose layers cannot exchange weights."""
        if self.redistribution == "none" or isinstance(structure, Unstructured):
            return ""
        return f"{type(self).__name__} with redistribution moves weights from layer to layer, which {structure} masks do not allow; take redistribution none, or plan unstructured masks."

    def growth(self, layer: Layer) -> Tensor:
        """Scores by which units grow, (rows, units); every algorithm of this kind has its own."""
        raise NotImplementedError

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks: drop by |θ|, grow by the method's scores."""
        share, growth = self.share(step), [self.growth(x) for x in layers]
        if self.redistribution != "none":
            return redistributed(layers, growth, share, self.redistribution, regrow=self.regrow)
        return [drop_grow(x, g, share, regrow=self.regrow) for x, g in zip(layers, growth, strict=True)]


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
