"""Trade-offs in two objectives: dominance, the frontier, error over seeds, and readings at equal height.

Nothing here knows what is on an axis: x is what is paid, y what is got for it, and `Senses` says which way each is
better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp, fsum, isfinite, log, sqrt

from iftplan.base.errors import InputError


class Sense(StrEnum):
    """Direction in which a number is better."""

    HIGHER = "higher"
    LOWER = "lower"

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self is Sense.HIGHER else -1


@dataclass(frozen=True, slots=True)
class Senses:
    """Direction in which each axis is better.

    Attributes:
        x: of what is paid.
        y: of what is got.
    """

    x: Sense = Sense.LOWER
    y: Sense = Sense.HIGHER


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that was measured some times.

    Attributes:
        mean: of all values.
        error: its standard error; None where there is one value, which says nothing of others.
        count: how many values.
    """

    mean: float
    error: float | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Point:
    """Point in the plane of cost and gain; see `Senses`.

    Raises:
        InputError: a coordinate is infinite or no number.
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        for name, value in (("x", self.x), ("y", self.y)):
            if not isfinite(value):
                raise InputError(
                    f"a point has {name} = {value}, which cannot be compared; leave out runs without a finite number."
                )


class ReadingOutcome(StrEnum):
    """Outcome of a reading; the values are the sentences that users read."""

    READ = "read on the frontier"
    BELOW = "refused: the cheapest point of the frontier is better already, and a reading would extrapolate below it"
    ABOVE = "refused: no point of the frontier is as good, and a reading would extrapolate beyond it"


@dataclass(frozen=True, slots=True)
class Reading:
    """Cost of a frontier at the height of a reference.

    Attributes:
        outcome: whether it could be read.
        x: where the frontier is at the reference's height; None where that was refused.
        ratio: the reference's x over that.
    """

    outcome: ReadingOutcome
    x: float | None = None
    ratio: float | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error, s/√n with s from n-1.

    Raises:
        InputError: no value, or one that is not finite.

    Example:
        >>> estimate([1.0, 3.0])
        Estimate(mean=2.0, error=1.0, count=2)
    """
    if not values or not all(map(isfinite, values)):
        raise InputError(f"{list(values)} have no finite mean; leave out runs without a finite number.")
    n = len(values)
    mean = fsum(values) / n
    if n == 1:
        return Estimate(mean)
    return Estimate(mean, sqrt(fsum((v - mean) ** 2 for v in values) / (n - 1) / n), n)


def dominates(a: Point, b: Point, senses: Senses = Senses()) -> bool:
    """Whether `a` is at least as good as `b` in both, and better in one; equals do not dominate each other.

    Args:
        a: a point.
        b: another point.
        senses: which way each axis is better; by default low costs and high gains.

    Example:
        >>> dominates(Point(1, 5), Point(2, 5)), dominates(Point(1, 5), Point(1, 5))
        (True, False)
    """
    dx, dy = senses.x.sign * (a.x - b.x), senses.y.sign * (a.y - b.y)
    return dx >= 0 and dy >= 0 and (dx > 0 or dy > 0)


def frontier(points: Sequence[Point], senses: Senses = Senses()) -> tuple[int, ...]:
    """The points that no other dominates, by index, from the cheapest on; duplicates are all kept.

    Example:
        >>> frontier([Point(1, 1), Point(2, 3), Point(3, 2)])
        (0, 1)
    """

    def key(i: int) -> tuple[float, float, int]:
        return (-senses.x.sign * points[i].x, -senses.y.sign * points[i].y, i)

    found: list[int] = []
    for i in sorted(range(len(points)), key=key):  # best x first, and of equal x the best y
        best = points[found[-1]] if found else None
        if best is None or senses.y.sign * (points[i].y - best.y) > 0 or points[i] == best:
            found.append(i)
    return tuple(found)


def equal_reading(reference: Point, points: Sequence[Point], senses: Senses = Senses()) -> Reading:
    """Cost of the frontier of `points` where it is as good as a reference: linear in y, logarithmic in x.

    Between its points only: what lies beyond them is not known.

    Args:
        reference: whose height is read at.
        points: among them those of the frontier.
        senses: which way each axis is better; by default low costs and high gains.

    Raises:
        InputError: an x that is not positive, and so has no logarithm.

    Example:
        >>> equal_reading(Point(4, 70), [Point(1, 60), Point(2, 70), Point(8, 75)]).ratio
        2.0
    """
    if min(p.x for p in (reference, *points)) <= 0:
        raise InputError(
            "a cost must be above 0 to be compared as a ratio; leave out points with a cost of 0."
        )
    line = [points[i] for i in frontier(points, senses)]
    heights = [senses.y.sign * p.y for p in line]
    height = senses.y.sign * reference.y
    if not line or height > heights[-1]:
        return Reading(ReadingOutcome.ABOVE)
    if height < heights[0]:
        return Reading(ReadingOutcome.BELOW)
    after = next(i for i, h in enumerate(heights) if h >= height)
    x = line[after].x
    if heights[after] > height:
        below = line[after - 1]
        part = (height - heights[after - 1]) / (heights[after] - heights[after - 1])
        x = exp((1 - part) * log(below.x) + part * log(x))
    return Reading(ReadingOutcome.READ, x, reference.x / x)


def iso_groups(xs: Sequence[float], tolerance: float = 0.05) -> tuple[tuple[int, ...], ...]:
    """Indices of numbers that are alike: none more than `tolerance` above the smallest of its group.

    Groups of one are left out; the rest come in ascending order.

    Example:
        >>> iso_groups([100, 200, 103])
        ((0, 2),)
    """
    groups: list[list[int]] = []
    for i in sorted(range(len(xs)), key=lambda i: (xs[i], i)):
        if groups and xs[i] <= xs[groups[-1][0]] * (1 + tolerance):
            groups[-1].append(i)
        else:
            groups.append([i])
    return tuple(tuple(group) for group in groups if len(group) > 1)
