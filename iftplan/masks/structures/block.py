"""Masks of whole blocks.

A block that does not divide a shape is refused; with the suffix `+pad` what hangs over the edge is always kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from iftplan.base.errors import InfeasibleError
from iftplan.masks.cardinality import log2_choose
from iftplan.masks.structure import PAD, MaskStructure, Matrices, numel, row_bits


@dataclass(frozen=True, slots=True)
class Block(MaskStructure):
    """Whole blocks of `height` inputs by `width` outputs.

    Attributes:
        height: inputs of a block.
        width: outputs of a block.
        padded: whether shapes may leave a remainder; blocks that hang over the edge are always kept.
    """

    height: int
    width: int
    padded: bool = False

    notations: ClassVar = ("block4x4",)
    pads: ClassVar = True

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that `block4x2` names, of four inputs by two outputs, or `block4x2+pad`; None for any other."""
        match = re.fullmatch(r"block([1-9]\d*)x([1-9]\d*)", text.removesuffix(PAD))
        return cls(int(match[1]), int(match[2]), text.endswith(PAD)) if match else None

    @property
    def pattern(self) -> tuple[int, int]:
        """Inputs and outputs of a block."""
        return self.height, self.width

    @property
    def multiples(self) -> tuple[int, int]:
        """Multiples that inputs and outputs must be: the block's sides; 1 where padded."""
        return (1, 1) if self.padded else self.pattern

    @property
    def block(self) -> tuple[int, int]:
        """Inputs and outputs of a block."""
        return self.pattern

    @property
    def filled(self) -> Block | None:
        """The same blocks for shapes that leave a remainder; None where these are."""
        return None if self.padded else replace(self, padded=True)

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: a block transposed is a block."""
        return True

    @property
    def area(self) -> int:
        """Number of weights of a block."""
        return self.height * self.width

    def blocks(self, matrices: Matrices) -> int:
        """Number of blocks of full size."""
        return sum((m // self.height) * (n // self.width) for m, n in matrices)

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights that a mask can keep: whole blocks, and always the partial blocks at the edge.

        Raises:
            InfeasibleError: blocks do not tile a matrix; names the nearest size that they do.
        """
        for rows, columns in () if self.padded else matrices:
            if rows % self.height or columns % self.width:
                raise InfeasibleError(
                    f"a {rows}×{columns} weight (inputs × outputs) cannot be divided into {self} blocks; the nearest size "
                    f"that can is {-(-rows // self.height) * self.height}×{-(-columns // self.width) * self.width}. "
                    f"{self}{PAD} accepts any size, and always keeps the partial blocks at its edge."
                )
        whole = self.blocks(matrices) * self.area
        edge = numel(matrices) - whole
        return range(edge, edge + whole + 1, self.area)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: log2 C(N/b, nnz/b)."""
        chosen = (nnz - self.counts(matrices).start) // self.area
        return log2_choose(self.blocks(matrices), chosen)

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits of compressed sparse rows of blocks; of a bitmap of them, if that is less."""
        kept = (nnz - self.counts(matrices).start) // self.area
        rows = sum(n // self.width for _, n in matrices)
        columns = max((m // self.height for m, _ in matrices), default=0)
        return min(self.blocks(matrices), row_bits(kept, rows, columns))

    def __str__(self) -> str:
        return f"block{self.height}x{self.width}{PAD * self.padded}"
