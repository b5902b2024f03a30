"""How a number changes over training: pure functions of the fraction of the schedule that has passed.

Each is a value with one method, `at(progress)`, for progress in [0, 1]; outside it stays at its ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, cos, exp, floor, pi
from typing import Literal, Protocol

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


def step_at(time: int | float, steps: int) -> int:
    """Step of a training of so many steps: the one that is named, or the one at that fraction of it.

    Example:
        >>> step_at(7500, 10_000), step_at(0.75, 10_000)
        (7500, 7500)
    """
    return round(time * steps) if isinstance(time, float) else time


def known_step(time: int | float) -> int:
    """The step itself; a fraction of training is refused, because it needs the length of training.

    Raises:
        InputError: a fraction of a training whose length is not known.
    """
    if isinstance(time, float):
        raise InputError(
            f"{time:g} is a fraction of training, but the number of steps is not known. Give `steps` where "
            "training starts, as in Masking(model, optimizer, algorithm, steps=10_000), or write a whole number "
            "of steps."
        )
    return time


def check_times(begin: int | float, end: int | float) -> None:
    """Refuse a begin and an end of mask updates that are not a span of training.

    Args:
        begin: a step, or a fraction of training.
        end: a step, or a fraction of training.

    Raises:
        InputError: a float that is no fraction, or an end before the begin.
    """
    for time in (begin, end):
        if isinstance(time, float) and not 0 <= time <= 1:
            raise InputError(
                f"mask updates cannot begin or end at {time!r}: write a whole number of steps, or a fraction of "
                "training from 0.0 to 1.0."
            )
    alike = isinstance(begin, float) == isinstance(end, float)
    if begin < 0 or (alike and end < begin):
        raise InputError(
            f"mask updates cannot run from step {begin} to step {end}; steps count from 0, and the end must not "
            "be before the begin."
        )


@dataclass(frozen=True, slots=True)
class Updates:
    """Steps at which masks change: every `interval` steps between `begin` and `end`.

    Steps count from 0: step t is the (t+1)-th call of the trainer. A float is a fraction of training, which becomes a
    step when training starts and its length is known.

    Attributes:
        end: the step at which the schedule has run out, or a fraction of training; RigL's authors end at 0.75.
        interval: ΔT, in steps.
        begin: the first step of the schedule, or a fraction of training.
        at_begin: whether `begin` itself may be an update.
        at_end: whether `end` itself may be an update.
        count_from: the number of the first step; at 1, as the code of arXiv 2303.11525 counts, every update comes one
            step earlier.
        anneal_from: what the schedule is a fraction of: training up to `end` from its "start", as RigL's t/T_end has
            it, or from "begin", as the code of arXiv 2303.11525 has it.

    Raises:
        InputError: an interval below 1, a begin below 0, an end before it, or a fraction above 1.

    Example:
        >>> Updates(end=0.75).over(10_000)
        Updates(end=7500, interval=100, begin=0, at_begin=False, at_end=False, count_from=0, anneal_from='start')
    """

    end: int | float
    interval: int = 100
    begin: int | float = 0
    at_begin: bool = False
    at_end: bool = False
    count_from: int = 0
    anneal_from: Literal["start", "begin"] = "start"

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise InputError(
                f"masks cannot be updated every {self.interval} steps; the smallest interval is 1."
            )
        check_times(self.begin, self.end)

    @property
    def needs_length(self) -> bool:
        """Whether the schedule follows from the length of training only."""
        return isinstance(self.begin, float) or isinstance(self.end, float)

    def over(self, steps: int) -> Updates:
        """The same schedule in a training of so many optimizer steps, fractions as steps."""
        return replace(self, begin=step_at(self.begin, steps), end=step_at(self.end, steps))

    def but(
        self, interval: int | None = None, begin: int | float | None = None, end: int | float | None = None
    ) -> Updates:
        """The same schedule but for what is given.

        Args:
            interval: ΔT, in steps.
            begin: a step, or a fraction of training as a float.
            end: a step, or a fraction of training as a float.
        """
        return replace(
            self,
            interval=self.interval if interval is None else interval,
            begin=self.begin if begin is None else begin,
            end=self.end if end is None else end,
        )

    @property
    def first(self) -> int:
        """Step at which the schedule begins.

        Raises:
            InputError: it is a fraction of a training whose length is not known.
        """
        return known_step(self.begin)

    @property
    def last(self) -> int:
        """Step at which the schedule has run out.

        Raises:
            InputError: it is a fraction of a training whose length is not known.
        """
        return known_step(self.end)

    @property
    def last_due(self) -> int | None:
        """Last step at which masks change; None where they never do.

        Raises:
            InputError: begin or end is a fraction of a training whose length is not known.

        Example:
            >>> Updates(end=20, interval=3).last_due, Updates(end=3, interval=3).last_due
            (18, None)
        """
        rounds = (self.last - (not self.at_end) - self.first) // self.interval
        if rounds < 0 or (rounds == 0 and not self.at_begin):
            return None
        return self.first + rounds * self.interval - self.count_from

    def due(self, step: int) -> bool:
        """Whether masks change at that step."""
        step, first, last = step + self.count_from, self.first, self.last
        begun = step > first or (self.at_begin and step == first)
        going = step < last or (self.at_end and step == last)
        return begun and going and (step - first) % self.interval == 0

    def progress(self, step: int) -> float:
        """The fraction of the schedule that has passed at a step that is counted from 0."""
        start = self.first if self.anneal_from == "begin" else 0
        length = self.last - start
        return (step + self.count_from - start) / length if length else 1.0

    def count(self) -> int:
        """Number of updates of the whole schedule."""
        span = self.last - self.first
        if span < 0:
            return 0
        inner = max(0, (span - 1) // self.interval)
        reaches_begin = self.at_begin and self.first >= self.count_from
        return (
            inner
            + reaches_begin * (span > 0 or self.at_end)
            + (self.at_end and span > 0 and span % self.interval == 0)
        )


def whole_part(size: int, fraction: float) -> int:
    """Number of so many things that a fraction of them is, rounded down, at least none and at most all.

    Example:
        >>> whole_part(100, 0.29)  # 100·.29 comes out a hair below 29
        29
    """
    return min(size, max(0, floor(round(size * fraction, 6))))


def left_at(updates: Updates, step: int, initial: int, target: int) -> int:
    """Number of units that a cubic leaves after an update at a step, exactly the target at the end.

    Args:
        updates: the schedule, which arrives at its end.
        step: counted from 0.
        initial: how many there are at its begin.
        target: how many there are at its end.

    Example:
        >>> [left_at(Updates(end=4), t, 1000, 100) for t in (0, 1, 2, 4)]
        [1000, 480, 213, 100]
    """
    span = updates.last - updates.first
    progress = (step - updates.first) / span if span else 1.0
    return target + ceil(round(Cubic(initial - target, 0).at(progress), 6))


def _within(progress: float) -> float:
    return min(1.0, max(0.0, progress))
