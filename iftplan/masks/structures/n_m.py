"""N:M masks: N of every M weights along the inputs, or N to every row and column of M×M tiles.

A pattern that does not divide a shape is refused; with the suffix `+pad` the weight is thought of as filled up to whole
patterns, and what hangs over the edge keeps as much as its pattern allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import comb, log2
from typing import ClassVar, Self

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks.cardinality import EXACT_TILE, log2_choose, log2_tile_masks, tile_masks
from iftplan.masks.structure import PAD, MaskStructure, Matrices, index_width


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

    notations: ClassVar = ("2:4", "2:4T (transposable)")
    pads: ClassVar = True

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Structure that `2:8`, `2:8T`, or one of them with `+pad`, names; None for any other.

        Raises:
            InputError: N is 0 or above M, or M above 64.
        """
        match = re.fullmatch(r"(\d+):(\d+)(T?)", text.removesuffix(PAD))
        if not match:
            return None
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept <= of or of > 64:
            near = (
                f"Did you mean {of}:{kept}?"
                if 0 < of < kept <= 64
                else f"The nearest is {min(max(kept, 1), max(min(of, 64), 1))}:{max(min(of, 64), 1)}."
            )
            raise InputError(
                f"mask structure {text!r}: N:M keeps N of M weights, with N from 1 to M and M at most 64. {near}"
            )
        return cls(kept, of, bool(match[3]), text.endswith(PAD))

    @property
    def density(self) -> Fraction:
        """Density N/M, a fraction of 1."""
        return Fraction(self.kept, self.of)

    @property
    def pattern(self) -> tuple[int, int]:
        """Inputs and outputs of a group, or a tile: M inputs, and M outputs where transposable."""
        return self.of, self.of if self.transposable else 1

    @property
    def multiples(self) -> tuple[int, int]:
        """Whole groups; any size where padded."""
        return (1, 1) if self.padded else self.pattern

    @property
    def filled(self) -> NM | None:
        """The same pattern for shapes that leave a remainder; None where this is one."""
        return None if self.padded else replace(self, padded=True)

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
        """Number of weights that a short group, or tile, keeps less than a whole one."""
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

    def shortage(self, layers: Iterable[tuple[Matrices, int]]) -> str:
        """Sentence on the part of the groups, or tiles, that keeps N-1; empty where all keep N."""
        found = [(self.short(matrices, nnz), self.groups(matrices)) for matrices, nnz in layers]
        short, groups = (sum(counts) for counts in zip(*found, strict=True))
        if not short:
            return ""
        cells, fewer = ("tiles", " in each row and column") if self.transposable else ("groups", "")
        return f"{short / groups:.2%} of the {cells} keep {self.kept - 1} of {self.of}{fewer}"

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits to name one mask: (N_w/M)·log2 C(M, N), or per M×M tile; short groups are named too."""
        groups, short = self.groups(matrices), self.short(matrices, nnz)
        whole = (groups - short) * self._log2_group(self.kept)
        whole += short * self._log2_group(self.kept - 1) if short else 0
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
        return log2_tile_masks(self.of, kept) if self.transposable else log2(comb(self.of, kept))

    def _log2_edges(self, inputs: int, outputs: int) -> float:
        edges = self.edges(inputs, outputs)
        if wide := next(((r, c) for _, r, c in edges if min(r, c) > EXACT_TILE), None):
            raise InfeasibleError(
                f"how many {self} masks there are for the edge of {wide[0]} inputs and {wide[1]} outputs is not known; widths that are multiples "
                f"of {self.of} have no edge."
            )
        return sum(many * log2(tile_masks(r, c, self.kept)) for many, r, c in edges)

    def _check(self, matrices: Matrices) -> None:
        for rows, columns in () if self.padded else matrices:
            for size, name in ((rows, "inputs"), (columns, "outputs"))[: 1 + self.transposable]:
                if size % self.of:
                    up = -(-size // self.of) * self.of
                    raise InfeasibleError(
                        f"{self} masks need {name} divisible by {self.of}, but there are {size}; the nearest is {up}. "
                        f"{self}{PAD} accepts any size, with a shorter group at its edge."
                    )

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits of a place among M for each weight of whole groups, as sparse tensor cores store 2:4; short ones hold a zero."""
        return self.counts(matrices)[-1] * index_width(self.of)

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}{'T' * self.transposable}{PAD * self.padded}"
