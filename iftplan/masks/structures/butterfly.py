"""Masks that are the same for every weight of a shape: block-diagonal ones and flat block butterflies.

Inputs and outputs fall into equal blocks, as many on both sides. A block-diagonal mask keeps block i of the inputs for
block i of the outputs. A flat block butterfly of largest stride k keeps block j too if i and j differ in one bit below k:
1 + log2(k) blocks for each output (Chen et al., arXiv 2112.00029, section 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks.structure import MaskStructure, Matrices, numel

_SHUFFLE = "+shuffle"


@dataclass(frozen=True, slots=True)
class Butterfly(MaskStructure):
    """Structure with one mask for each shape, of blocks that are kept by their place.

    Attributes:
        blocks: number of blocks of the inputs, and of the outputs.
        stride: the largest stride, a power of two; 1 keeps the diagonal alone.
        shuffled: whether blocks of inputs take every `blocks`-th input rather than neighbours, so that layers in a row mix
            what they keep apart one by one.
    """

    blocks: int
    stride: int = 1
    shuffled: bool = False

    notations: ClassVar = ("blockdiag4", "blockdiag4+shuffle", "butterfly16", "butterfly16x4")

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that `blockdiag4`, `blockdiag4+shuffle`, `butterfly16` (all strides) or `butterfly16x4` names; None for any other.

        Raises:
            InputError: blocks of a butterfly, or its stride, are no power of two, or the stride is above the blocks.
        """
        match = re.fullmatch(r"blockdiag([1-9]\d*)(\+shuffle)?", text)
        if match:
            return cls(int(match[1]), shuffled=bool(match[2]))
        match = re.fullmatch(r"butterfly([1-9]\d*)(?:x([1-9]\d*))?", text)
        if not match:
            return None
        blocks = int(match[1])
        stride = int(match[2] or blocks)
        if any(size.bit_count() != 1 for size in (blocks, stride)) or not 2 <= stride <= blocks:
            near = 1 << max(1, blocks.bit_length() - 1)
            within = min(near, 1 << max(1, stride.bit_length() - 1))
            raise InputError(
                f"mask structure {text!r}: a butterfly has a power of two of blocks, and a power of two from 2 to that as "
                f"its largest stride; the nearest is butterfly{near}x{within}."
            )
        return cls(blocks, stride)

    @property
    def density(self) -> Fraction:
        """Density (1 + log2 stride)/blocks, a fraction of 1."""
        return Fraction(self.stride.bit_length(), self.blocks)

    @property
    def rigid(self) -> bool:
        """Whether there is one mask for each shape: always."""
        return True

    @property
    def multiples(self) -> tuple[int, int]:
        """Multiples that inputs and outputs must be: the number of blocks."""
        return self.blocks, self.blocks

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too; shuffled, its blocks of outputs are shuffled instead."""
        return not self.shuffled

    def counts(self, matrices: Matrices) -> range:
        """The one number of weights.

        Raises:
            InfeasibleError: blocks do not divide a shape.
        """
        for m, n in matrices:
            if m % self.blocks or n % self.blocks:
                up = (-(-size // self.blocks) * self.blocks for size in (m, n))
                raise InfeasibleError(
                    f"a {m}×{n} weight (inputs × outputs) cannot be divided into {self.blocks} equal blocks on each side, "
                    f"as {self} masks need; the nearest size that can is {'×'.join(map(str, up))}."
                )
        kept = int(numel(matrices) * self.density)
        return range(kept, kept + 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: 0, for there is one."""
        return 0.0

    def __str__(self) -> str:
        if self.stride == 1:
            return f"blockdiag{self.blocks}{_SHUFFLE * self.shuffled}"
        return f"butterfly{self.blocks}" + (f"x{self.stride}" if self.stride < self.blocks else "")
