"""Mask decay: what is masked leaves the forward pass slowly (arXiv 2209.07617 and 2402.04744)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Final, Literal, Self

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.ste import StraightThrough
from iftplan.runs.cautions import arrival_cautions

NEVER: Final = 2**62

FAINT: Final = 1000
"""An exponential decay's D is 1/FAINT when it is cut off, where β is not said."""


@dataclass(frozen=True, slots=True)
class MaskDecay(StraightThrough):
    """Mask decay (arXiv 2209.07617, 2402.04744): forward θ⊙(m + D·(1-m)), where D falls from 1 to 0.

    Forward passes are dense until D is 0.

    k steps after the dense phase, D = max(0, 1 - βk) or e^(-βk).

    Attributes:
        beta: β, for each step.
        begin: steps of the dense phase.
        shape: "linear" or "exponential".
        end: the step from which D is 0 in any case: an exponential never is by itself; None for no such step.
        straight: whether θ's gradient is that of the forward weight, as the authors' code has it, or passes through
            the mask by the chain rule.
        pull: λ of SR-STE's pull; none in the papers.
        refresh: steps that one choice of masks lasts.

    Raises:
        InputError: an unknown shape, or an exponential decay without an end.
    """

    beta: float
    begin: int = 0
    shape: Literal["linear", "exponential"] = "linear"
    end: int | None = None
    straight: bool = True
    pull: float = 0.0
    refresh: int = 1

    name = "mask-decay"

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "exponential"):
            raise InputError(f"masks decay along no {self.shape!r}; shapes are linear and exponential.")
        if self.shape == "exponential" and self.end is None:
            raise InputError(
                "an exponential decay is never 0 by itself; say the step at which it ends, end=…."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's β, or with one that brings D to 0, by an exponential to 1/1000, at the schedule's end."""
        config, updates = asked.config, asked.updates
        beta, span = config.beta, max(1, updates.end - updates.begin)
        if beta is None:
            beta = (1.0 if config.decay == "linear" else log(FAINT)) / span
        pull, refresh = config.pull or 0.0, config.refresh or 1
        return cls(beta, updates.begin, config.decay, updates.end, config.straight, pull, refresh)

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about a run that ends before masks have the plan's counts.

        Args:
            steps: of the run.
            rate: looked at by no method that arrives.
        """
        return arrival_cautions(self.arrival, steps)

    @property
    def arrival(self) -> int:
        """Step from which D is 0; a step beyond every training where it never is."""
        faded = self.begin + ceil(1 / self.beta) if self.shape == "linear" and self.beta else NEVER
        return faded if self.end is None else min(faded, max(self.end, 0))

    def leak(self, step: int) -> float:
        """Factor D of pruned weights in the forward pass at that step; 1 in the dense phase."""
        if self.end is not None and step >= self.end:
            return 0.0
        k = max(0, step - self.begin)
        return max(0.0, 1.0 - self.beta * k) if self.shape == "linear" else exp(-self.beta * k)
