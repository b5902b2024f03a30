"""Exact integers from real-valued structures: the smallest or largest whole number that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt


def smallest_integer(near: float, fits: Callable[[int], bool]) -> int:
    """The smallest integer from 1 that fits, for a condition that stays true once it is; exact from any guess."""
    high, step = max(1, int(near)), 1
    while not fits(high):  # strides double: a guess of huge numbers may be off by more than can be counted
        high, step = high + step, step * 2
    low, step = high, 1
    while low and fits(low):
        low, step = max(0, low - step), step * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def largest_integer(near: float, fits: Callable[[int], bool]) -> int:
    """The largest integer that fits, for a condition that stays false once it is; 0 if none does."""
    return smallest_integer(near, lambda x: not fits(x)) - 1


def round_up(size: int, multiple: int) -> int:
    """The next multiple at or above `size`."""
    return -(-size // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Multiplier:
    """A width multiplier k known exactly through its square.

    Example:
        >>> Multiplier(Fraction(2)).scale(64)
        91
        >>> Multiplier(Fraction(1)).scale(3, multiple=8)
        3
    """

    squared: Fraction

    @staticmethod
    def closing(density: Fraction) -> Multiplier:
        """k = d**(-1/2), of Sparse Wide."""
        return Multiplier(1 / density)

    def __float__(self) -> float:
        return sqrt(self.squared)

    def scale(self, size: int, multiple: int = 1) -> int:
        """The smallest multiple at or above k·size; `size` itself where k is 1."""
        if self.squared == 1:
            return size
        target = self.squared * size * size
        return round_up(smallest_integer(float(self) * size, lambda width: width * width >= target), multiple)

    def scale_down(self, size: int, multiple: int = 1) -> int:
        """The largest multiple at or below k·size, and one multiple at least; `size` itself where k is 1."""
        if self.squared == 1:
            return size
        target = self.squared * size * size
        below = largest_integer(float(self) * size, lambda width: width * width <= target)
        return max(below // multiple, 1) * multiple
