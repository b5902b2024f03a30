"""Mask decay: what is masked leaves the forward pass slowly (arXiv 2209.07617 and 2402.04744)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, exp, log
from typing import Final, Literal, Self, cast

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.dense_weights.ste import StraightThrough, check_refresh
from iftplan.runs.cautions import arrival_cautions
from iftplan.runs.schedules import known_step, step_at

NEVER: Final = 2**62

FAINT: Final = 1000
"""An exponential decay's D is 1/FAINT when it is cut off, where β is not said."""


@dataclass(frozen=True, slots=True)
class MaskDecay(StraightThrough):
    """Mask decay (arXiv 2209.07617, 2402.04744): forward θ⊙(m + D·(1-m)), where D falls from 1 to 0.

    k steps after the dense phase, D = max(0, 1 - βk) or e^(-βk). Forward passes are dense until D is 0.

    Attributes:
        beta: β per step; None for the β with which D is 0 (an exponential D: 1/1000) at `end`, by default at three
            quarters of training.
        begin: steps of the dense phase, or a fraction of training as a float.
        shape: "linear" or "exponential".
        end: step from which D is 0, or a fraction of training as a float; an exponential D needs one, because it never
            reaches 0 by itself. None for no such step.
        straight: whether θ has the gradient of the forward weight, as in the authors' code, or that gradient times the
            mask, by the chain rule.
        pull: λ of SR-STE's pull towards zero off the mask; 0 in the papers.
        refresh: number of steps between two choices of masks.

    Raises:
        InputError: an unknown shape, or an exponential decay without an end.
    """

    beta: float | None = None
    begin: int | float = 0
    shape: Literal["linear", "exponential"] = "linear"
    end: int | float | None = None
    straight: bool = True
    pull: float = 0.0
    refresh: int = 1

    name = "mask-decay"

    def __post_init__(self) -> None:
        check_refresh(self.refresh)
        if self.shape not in ("linear", "exponential"):
            raise InputError(f"masks decay along no {self.shape!r}; shapes are linear and exponential.")
        if self.beta is None and self.end is None:
            object.__setattr__(self, "end", 0.75)
        if self.shape == "exponential" and self.end is None:
            raise InputError(
                "an exponential decay is never 0 by itself; say the step at which it ends, end=…."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's β, or with one that arrives at the schedule's end."""
        config, updates = asked.config, asked.updates
        pull, refresh = config.pull or 0.0, config.refresh or 1
        shape = cast("Literal['linear', 'exponential']", config.decay)  # others are refused by the value
        return cls(config.beta, updates.begin, shape, updates.end, config.straight, pull, refresh)

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about a run that ends before masks have the plan's counts.

        Args:
            steps: of the run.
            rate: looked at by no method that arrives.
        """
        return arrival_cautions(self.arrival, steps)

    @property
    def needs_length(self) -> bool:
        """Whether the decay begins or ends at a fraction of training."""
        return isinstance(self.begin, float) or isinstance(self.end, float)

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many optimizer steps."""
        end = None if self.end is None else step_at(self.end, steps)
        return replace(self, begin=step_at(self.begin, steps), end=end)

    @property
    def rate(self) -> float:
        """β, for each step."""
        if self.beta is not None or self.end is None:
            return self.beta or 0.0
        span = max(1, known_step(self.end) - known_step(self.begin))
        return (1.0 if self.shape == "linear" else log(FAINT)) / span

    @property
    def arrival(self) -> int:
        """Step from which D is 0; a step beyond every training where it never is."""
        rate = self.rate
        faded = known_step(self.begin) + ceil(1 / rate) if self.shape == "linear" and rate else NEVER
        return faded if self.end is None else min(faded, max(known_step(self.end), 0))

    def leak(self, step: int) -> float:
        """Factor D of pruned weights in the forward pass at that step; 1 in the dense phase."""
        if self.end is not None and step >= known_step(self.end):
            return 0.0
        rate, k = self.rate, max(0, step - known_step(self.begin))
        return max(0.0, 1.0 - rate * k) if self.shape == "linear" else exp(-rate * k)
