"""Masks that may be anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from iftplan.masks.cardinality import log2_choose
from iftplan.masks.structure import MaskStructure, Matrices, numel, row_bits


@dataclass(frozen=True, slots=True)
class Unstructured(MaskStructure):
    """Structure of any set of weights."""

    notations: ClassVar = ("unstructured",)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that the one word names; None for any other."""
        return cls() if text == "unstructured" else None

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: any set is any set."""
        return True

    @property
    def directed(self) -> bool:
        """Whether masks depend on which side the inputs are: no, any set is any set."""
        return False

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights from none to all."""
        return range(numel(matrices) + 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: log2 C(N, nnz)."""
        return log2_choose(numel(matrices), nnz)

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits of compressed sparse rows, one row for each output; of a bitmap, if that is less."""
        rows, columns = sum(n for _, n in matrices), max((m for m, _ in matrices), default=0)
        return min(numel(matrices), row_bits(nnz, rows, columns))

    def __str__(self) -> str:
        return "unstructured"
