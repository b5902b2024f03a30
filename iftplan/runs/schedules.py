"""How a number changes over training: pure functions of the fraction of the schedule that has passed.

Each is a value with one method, `at(progress)`, for progress in [0, 1]; outside it stays at its ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, exp, pi
from typing import Protocol

from iftplan.base.errors import InputError


class Schedule(Protocol):
    """Schedule of a number over training."""

    def at(self, progress: float) -> float:
        """Value of the schedule after that fraction of it, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Schedule that stays at α throughout."""

    initial: float = 0.3

    def at(self, progress: float) -> float:
        """Value α, at any time."""
        return self.initial


@dataclass(frozen=True, slots=True)
class Cosine:
    """Schedule (α/2)·(1 + cos(π·progress)), RigL's own (arXiv 1911.11134, section 3).

    Example:
        >>> round(Cosine(0.3).at(0.25), 6)
        0.256066
    """

    initial: float = 0.3

    def at(self, progress: float) -> float:
        """Value after that fraction of the schedule: from α to 0, along half a cosine."""
        return self.initial / 2 * (1 + cos(pi * _within(progress)))


@dataclass(frozen=True, slots=True)
class Linear:
    """Schedule α·(1 - progress)."""

    initial: float = 0.3

    def at(self, progress: float) -> float:
        """Value after that fraction of the schedule: from α to 0, along a line."""
        return self.initial * (1 - _within(progress))


@dataclass(frozen=True, slots=True)
class Power:
    """Schedule α·(1 - progress)^k, which google/rigl and jaxpruner call exponential."""

    initial: float = 0.3
    exponent: float = 3.0

    def at(self, progress: float) -> float:
        """Value after that fraction of the schedule: from α to 0, along a power."""
        return self.initial * float((1 - _within(progress)) ** self.exponent)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Schedule α·e^(-k·progress), the other meaning of exponential; it does not reach 0."""

    initial: float = 0.3
    rate: float = 3.0

    def at(self, progress: float) -> float:
        """Value after that fraction of the schedule: from α to α·e^-k."""
        return self.initial * exp(-self.rate * _within(progress))


@dataclass(frozen=True, slots=True)
class Cubic:
    """Schedule final + (initial - final)·(1 - progress)³ of gradual pruning (arXiv 1710.01878, equation 1).

    Example:
        >>> Cubic(0.0, 0.9).at(0.5)
        0.7875
    """

    initial: float
    final: float

    def at(self, progress: float) -> float:
        """Value after that fraction of the schedule: from `initial` to `final`, quickly first."""
        return self.final + (self.initial - self.final) * (1 - _within(progress)) ** 3


@dataclass(frozen=True, slots=True)
class Updates:
    """Steps at which masks change: every `interval` steps between `begin` and `end`.

    Steps count from 0: step t is the (t+1)-th call of the trainer.

    Attributes:
        end: the step at which the schedule has run out.
        interval: ΔT.
        begin: the first step of the schedule.
        at_begin: whether `begin` itself may be an update.
        at_end: whether `end` itself may be an update.

    Raises:
        InputError: an interval below 1, a begin below 0, or an end before it.
    """

    end: int
    interval: int = 100
    begin: int = 0
    at_begin: bool = False
    at_end: bool = False

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise InputError(f"mask updates every {self.interval} steps are none; the least interval is 1.")
        if not 0 <= self.begin <= self.end:
            raise InputError(
                f"mask updates cannot run from step {self.begin} to step {self.end}; steps count from 0, and the end is not before the begin."
            )

    def due(self, step: int) -> bool:
        """Whether masks change at that step."""
        first = step > self.begin or (self.at_begin and step == self.begin)
        last = step < self.end or (self.at_end and step == self.end)
        return first and last and (step - self.begin) % self.interval == 0

    def progress(self, step: int) -> float:
        """The fraction of the schedule that has passed, as `t/T_end` counts it: from step 0."""
        return step / self.end if self.end else 1.0

    def count(self) -> int:
        """Number of updates of the whole schedule."""
        span = self.end - self.begin
        if span < 0:
            return 0
        inner = max(0, (span - 1) // self.interval)
        return (
            inner
            + self.at_begin * (span > 0 or self.at_end)
            + (self.at_end and span > 0 and span % self.interval == 0)
        )


def _within(progress: float) -> float:
    return min(1.0, max(0.0, progress))
