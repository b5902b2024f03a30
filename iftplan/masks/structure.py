"""What every mask structure answers, and the one that lets a mask be anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from iftplan.base.errors import InfeasibleError
from iftplan.masks.cardinality import log2_choose

Matrices = tuple[tuple[int, int], ...]
"""Shapes (inputs m, outputs n) of the masked matrices of one layer."""


def numel(matrices: Matrices) -> int:
    """Number of weights of all matrices.

    Example:
        >>> numel(((2, 3), (4, 5)))
        26
    """
    return sum(m * n for m, n in matrices)


class MaskStructure(Protocol):
    """Structure of a mask: which sets of weights can be kept together.

    Attributes:
        multiples: what the inputs and the outputs of a masked matrix must be divisible by.
        keeps_transposed: whether the transposed mask has the structure too. The gradient of a layer's inputs multiplies
            by the transposed weight, so that is whether hardware for the structure computes it sparsely as well.
    """

    @property
    def multiples(self) -> tuple[int, int]:
        """Multiples that inputs and outputs must be: any size, unless a structure says otherwise."""
        return 1, 1

    @property
    def keeps_transposed(self) -> bool: ...  # noqa: D102  (above)

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights that a mask of this structure can keep.

        Raises:
            InfeasibleError: the structure does not fit the shapes; names the nearest that it does.
        """

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits needed to name one mask with `nnz` weights."""

    def close(self, matrices: Matrices, budget: int) -> int:
        """Largest number of weights, at most `budget`, that a mask of this structure can keep.

        Raises:
            InfeasibleError: it keeps more than that whatever is chosen.
        """
        counts = self.counts(matrices)
        if budget < counts.start:
            raise InfeasibleError(
                f"{self} masks keep at least {counts.start} of these {numel(matrices)} weights, and the budget is {budget}."
            )
        return min(counts[-1], counts.start + (budget - counts.start) // counts.step * counts.step)


@dataclass(frozen=True, slots=True)
class Unstructured(MaskStructure):
    """Structure of any set of weights."""

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: any set is any set."""
        return True

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights from none to all."""
        return range(numel(matrices) + 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: log2 C(N, nnz)."""
        return log2_choose(numel(matrices), nnz)

    def __str__(self) -> str:
        return "unstructured"
