"""Patterns that tile a weight: groups and tiles of N:M, and blocks.

A pattern that does not divide a shape is refused; with the suffix `+pad` the weight is thought of as filled up to whole
patterns, and what hangs over the edge keeps as much as its pattern allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb, log2

from iftplan.base.errors import InfeasibleError
from iftplan.masks.cardinality import log2_choose, tile_masks
from iftplan.masks.structure import MaskStructure, Matrices, numel

PAD = "+pad"
"""The suffix of patterns whose shapes may leave a remainder."""


@dataclass(frozen=True, slots=True)
class NM(MaskStructure):
    """`kept` of every `of` weights along the inputs; if transposable, in every tile along both sides.

    To close a budget in whole weights some groups, or tiles, may be *short*: they keep N-1. Hardware for N:M runs them as
    they are. A mask without short ones is whole.

    Attributes:
        kept: N.
        of: M.
        transposable: whether every M×M tile has N in each row and each column.
        padded: whether shapes may leave a remainder. A group of r keeps min(N, r); an r×c tile keeps as many as fit with no
            row or column above N.
    """

    kept: int
    of: int
    transposable: bool = False
    padded: bool = False

    @property
    def density(self) -> Fraction:
        """Density N/M, a fraction of 1."""
        return Fraction(self.kept, self.of)

    @property
    def multiples(self) -> tuple[int, int]:
        """Multiples that inputs and outputs must be: M, of both where transposable; 1 where padded."""
        return (1, 1) if self.padded else (self.of, self.of if self.transposable else 1)

    @property
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too: by definition of transposable."""
        return self.transposable

    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights from every group short to every group whole."""
        self._check(matrices)
        most = sum(self._most(m, n) for m, n in matrices)
        return range(most - self.step * self.groups(matrices), most + 1, self.step)

    @property
    def step(self) -> int:
        """Weights by which a short group, or tile, falls behind a whole one."""
        return self.of if self.transposable else 1

    @property
    def size(self) -> tuple[int, int]:
        """(outputs, inputs) of a group or a tile."""
        return (self.of if self.transposable else 1), self.of

    def groups(self, matrices: Matrices) -> int:
        """Number of groups, or tiles, of full size."""
        along, of = self.size
        return sum((m // of) * (n // along) for m, n in matrices)

    def short(self, matrices: Matrices, nnz: int) -> int:
        """Number of groups, or tiles, that are short in a mask with `nnz` weights."""
        return (self.counts(matrices)[-1] - nnz) // self.step

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: (N_w/M)·log2 C(M, N), or per M×M tile; short groups are named too."""
        groups, short = self.groups(matrices), self.short(matrices, nnz)
        whole = (groups - short) * self._log2_group(self.kept) + short * self._log2_group(self.kept - 1)
        return whole + log2_choose(groups, short) + sum(self._log2_edges(m, n) for m, n in matrices)

    def edges(self, inputs: int, outputs: int) -> tuple[tuple[int, int, int], ...]:
        """Kinds of groups or tiles that hang over the edge: (how many, inputs, outputs)."""
        m, r = divmod(inputs, self.of)
        if not self.transposable:
            return ((outputs, r, 1),) if r else ()
        n, c = divmod(outputs, self.of)
        kinds = ((n, r, self.of), (m, self.of, c), (1, r, c))
        return tuple(kind for kind in kinds if all(kind))

    def _most(self, inputs: int, outputs: int) -> int:
        whole = self.groups(((inputs, outputs),)) * self.kept * self.step
        return whole + sum(many * self._in_edge(r, c) for many, r, c in self.edges(inputs, outputs))

    def _in_edge(self, inputs: int, outputs: int) -> int:
        """The most entries of an edge with at most N in every row and, in a tile, in every column."""
        shorter, longer = sorted((inputs, outputs))
        return shorter * min(self.kept, longer)

    def _log2_group(self, kept: int) -> float:
        return log2(tile_masks(self.of, self.of, kept) if self.transposable else comb(self.of, kept))

    def _log2_edges(self, inputs: int, outputs: int) -> float:
        return sum(many * log2(tile_masks(r, c, self.kept)) for many, r, c in self.edges(inputs, outputs))

    def _check(self, matrices: Matrices) -> None:
        for rows, columns in () if self.padded else matrices:
            for size, name in ((rows, "inputs"), (columns, "outputs"))[: 1 + self.transposable]:
                if size % self.of:
                    up = -(-size // self.of) * self.of
                    raise InfeasibleError(
                        f"{self} masks need {name} divisible by {self.of}; {size} are given, the nearest is {up}, and {self}{PAD} fills up."
                    )

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}{'T' * self.transposable}{PAD * self.padded}"


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

    @property
    def multiples(self) -> tuple[int, int]:
        """Multiples that inputs and outputs must be: the block's sides; 1 where padded."""
        return (1, 1) if self.padded else (self.height, self.width)

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
        """Numbers of weights in steps of one block, on top of those that hang over the edge.

        Raises:
            InfeasibleError: blocks do not tile a matrix; names the nearest size that they do.
        """
        for rows, columns in () if self.padded else matrices:
            if rows % self.height or columns % self.width:
                raise InfeasibleError(
                    f"{self} masks do not tile a {rows}×{columns} weight (inputs × outputs); the nearest that they do is "
                    f"{-(-rows // self.height) * self.height}×{-(-columns // self.width) * self.width}, and {self}{PAD} keeps what hangs over."
                )
        whole = self.blocks(matrices) * self.area
        edge = numel(matrices) - whole
        return range(edge, edge + whole + 1, self.area)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: log2 C(N/b, nnz/b)."""
        chosen = (nnz - self.counts(matrices).start) // self.area
        return log2_choose(self.blocks(matrices), chosen)

    def __str__(self) -> str:
        return f"block{self.height}x{self.width}{PAD * self.padded}"
