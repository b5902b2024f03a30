"""Checks of the arguments that the formulas of this folder share."""

from __future__ import annotations

from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.base.units import decimal


def part(name: str, value: Fraction) -> Fraction:
    """The value, which has to lie in [0, 1].

    Raises:
        InputError: it does not.
    """
    if not 0 <= value <= 1:
        nearest = 0 if value < 0 else 1
        raise InputError(f"{name} is {decimal(value, 4)}, but must be between 0 and 1 (nearest: {nearest}).")
    return value


def at_least(name: str, value: int | Fraction, least: int) -> None:
    """Nothing, if the value is as large as it has to be.

    Args:
        name: of the argument, for the message.
        value: that was given.
        least: that it has to be.

    Raises:
        InputError: it is smaller.
    """
    if value < least:
        raise InputError(f"{name} is {decimal(Fraction(value), 4)}, but must be at least {least}.")
