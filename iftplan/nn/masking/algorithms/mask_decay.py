"""Mask decay: what is masked leaves the forward pass slowly (arXiv 2209.07617 and 2402.04744)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp
from typing import Final, Literal

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.ste import StraightThrough

NEVER: Final = 2**62


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

    def __post_init__(self) -> None:
        if self.shape not in ("linear", "exponential"):
            raise InputError(f"masks decay along no {self.shape!r}; shapes are linear and exponential.")
        if self.shape == "exponential" and self.end is None:
            raise InputError(
                "an exponential decay is never 0 by itself; say the step at which it ends, end=…."
            )

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
