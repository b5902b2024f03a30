"""Masks under which a neuron, or a filter, keeps all of its inputs or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from iftplan.base.errors import InfeasibleError
from iftplan.masks.cardinality import log2_choose
from iftplan.masks.structure import MaskStructure, Matrices, numel, unit_bits


@dataclass(frozen=True, slots=True)
class Channel(MaskStructure):
    """Whole output channels: a neuron, or a filter, keeps all of its inputs or none."""

    notations: ClassVar = ("channel",)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that the one word names; None for any other."""
        return cls() if text == "channel" else None

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: yes, what is left is a smaller dense matrix."""
        return True

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights in steps of one channel.

        Raises:
            InfeasibleError: the matrices have different numbers of inputs.
        """
        inputs = {m for m, _ in matrices}
        if len(inputs) > 1:
            raise InfeasibleError(
                f"{self} masks need matrices with the same number of inputs, but these have "
                f"{' and '.join(map(str, sorted(inputs)))}; use fan-in, or a family with one matrix, such as wide."
            )
        return range(0, numel(matrices) + 1, max(inputs, default=1))

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: log2 C(n, c)."""
        return log2_choose(sum(n for _, n in matrices), nnz // self.counts(matrices).step)

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits that name the kept channels."""
        return unit_bits(nnz // self.counts(matrices).step, sum(n for _, n in matrices))

    def __str__(self) -> str:
        return "channel"
