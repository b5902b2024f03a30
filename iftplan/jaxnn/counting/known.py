"""What is known of a value without data: which weight it is, what it was made of, and the number that it must be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from iftplan.jaxnn.counting.primitives import LAYOUT

INPUT: Final = "\0input"
"""Stands among the origins of a value that is made of the model's inputs without a weight on the way."""


@dataclass(frozen=True, slots=True)
class Known:
    """One value of a jaxpr.

    Attributes:
        weight: name of the argument whose elements it holds; "" for anything else.
        origins: weights of the last products before it, and `INPUT`.
        number: the integer that it is; None where that is not known.
    """

    weight: str = ""
    origins: frozenset[str] = frozenset()
    number: int | None = None

    def joined(self, other: Known) -> Known:
        """Knowledge that holds of a value that is the one or the other."""
        return Known(
            self.weight if self.weight == other.weight else "",
            self.origins | other.origins,
            self.number if self.number == other.number else None,
        )


NOTHING: Final = Known()


def literal(value: Any) -> Known:
    """A constant: its number, if it is one integer."""
    if getattr(value, "shape", ()) != () or isinstance(value, bool):
        return NOTHING
    dtype = getattr(value, "dtype", None)
    whole = isinstance(value, int) if dtype is None else getattr(dtype, "kind", "") in "iu"
    return Known(number=int(value)) if whole else NOTHING


def origins(values: Iterable[Known]) -> frozenset[str]:
    """Everything that these values were made of."""
    return frozenset().union(*(value.origins for value in values))


def result(name: str, values: Sequence[Known]) -> Known:
    """The result of a primitive without products.

    Args:
        name: of the primitive.
        values: its operands.
    """
    made_of = Known(origins=origins(values))
    if name in LAYOUT and values:
        return replace(made_of, weight=values[0].weight, number=values[0].number)
    numbers = [value.number for value in values]
    match name, numbers:
        case "add", [int(a), int(b)]:
            return replace(made_of, number=a + b)
        case "sub", [int(a), int(b)]:
            return replace(made_of, number=a - b)
        case "mul", [int(a), int(b)]:
            return replace(made_of, number=a * b)
        case "max", [int(a), int(b)]:
            return replace(made_of, number=max(a, b))
        case "min", [int(a), int(b)]:
            return replace(made_of, number=min(a, b))
    return made_of
