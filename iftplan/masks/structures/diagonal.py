"""Masks of whole diagonals, as DynaDiag has them (Tyagi et al., arXiv 2506.11449).

A weight of m inputs and n outputs falls into max(m, n) diagonals of min(m, n) weights: they begin along its longer side,
and go on at that side's start where they leave its end. Every row along the shorter side has one weight of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from iftplan.base.errors import InfeasibleError
from iftplan.masks.cardinality import log2_choose
from iftplan.masks.structure import MaskStructure, Matrices, numel, unit_bits


@dataclass(frozen=True, slots=True)
class Diagonal(MaskStructure):
    """Structure of whole diagonals, which go round the longer side of a weight."""

    notations: ClassVar = ("diagonal",)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that the one word names; None for any other."""
        return cls() if text == "diagonal" else None

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: a diagonal transposed is one that begins elsewhere."""
        return True

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights in steps of one diagonal.

        Raises:
            InfeasibleError: the matrices have diagonals of different lengths.
        """
        lengths = {min(shape) for shape in matrices}
        if len(lengths) > 1:
            raise InfeasibleError(
                f"{self} masks need matrices with diagonals of the same length, but these have "
                f"{' and '.join(map(str, sorted(lengths)))}; use fan-in, or a family with one matrix, such as wide."
            )
        return range(0, numel(matrices) + 1, max(lengths, default=1) or 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: log2 C(max(m, n), d), of the diagonals of all matrices together."""
        return log2_choose(sum(max(shape) for shape in matrices), nnz // self.counts(matrices).step)

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits that name the kept diagonals."""
        return unit_bits(nnz // self.counts(matrices).step, sum(max(shape) for shape in matrices))

    def __str__(self) -> str:
        return "diagonal"
