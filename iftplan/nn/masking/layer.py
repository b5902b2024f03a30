"""One masked weight as an algorithm sees it: rows of units, and how many each row keeps in the end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Scores of one weight in its structure's layout; all tensors are (rows, units).

    Attributes:
        name: qualified parameter name.
        magnitude: |θ|, summed over a unit.
        gradient: |g| of the dense gradient, summed over a unit; None where the algorithm asks for none.
        saliency: |θ·g|, summed over a unit; None likewise.
        mask: which units are kept now.
        target: units that each row keeps when the plan's budget is met.
        generator: random numbers of this weight at this step, the same on all ranks.
    """

    name: str
    magnitude: Tensor
    gradient: Tensor | None
    saliency: Tensor | None
    mask: Tensor
    target: int
    generator: Generator

    @property
    def units(self) -> int:
        """Units in a row."""
        return self.mask.shape[1]

    @property
    def active(self) -> int:
        """Units that each row keeps now."""
        return int(self.mask[0].count_nonzero()) if len(self.mask) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What an update makes of one weight; both tensors are (rows, units).

    Attributes:
        mask: which units are kept from now on.
        grown: which of them were chosen to grow, those among them that were active a moment ago.
    """

    mask: Tensor
    grown: Tensor
