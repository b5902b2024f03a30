"""Masks under which every neuron keeps equally many inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from iftplan.masks.cardinality import log2_choose
from iftplan.masks.structure import MaskStructure, Matrices, index_width, numel


@dataclass(frozen=True, slots=True)
class ConstantFanIn(MaskStructure):
    """Structure in which every output neuron keeps the same number of inputs."""

    notations: ClassVar = ("fan-in",)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that the one word names; None for any other."""
        return cls() if text == "fan-in" else None

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: no, inputs feed differently many neurons."""
        return False

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights in steps of one input of every neuron, up to the matrix with the fewest."""
        neurons = sum(n for _, n in matrices)
        return range(0, neurons * min((m for m, _ in matrices), default=0) + 1, neurons or 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: n·log2 C(m, f), summed over the matrices."""
        neurons = sum(n for _, n in matrices)
        return sum(n * log2_choose(m, nnz // neurons) for m, n in matrices) if neurons else 0.0

    def shares(self, matrices: Matrices, nnz: int) -> tuple[int, ...]:
        """Number of weights that each matrix keeps: all have one fan-in."""
        fan_in = nnz // sum(n for _, n in matrices)
        return tuple(fan_in * n for _, n in matrices)

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits of an input's index for each kept weight; where rows begin follows from the fan-in."""
        return (
            min(
                numel(matrices),
                sum(
                    share * index_width(m)
                    for share, (m, _) in zip(self.shares(matrices, nnz), matrices, strict=True)
                ),
            )
            if nnz
            else 0
        )

    def __str__(self) -> str:
        return "fan-in"
