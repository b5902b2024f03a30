"""Mask structures as values: what a mask may look like, its exact count, and how many there are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import comb, log2
from typing import Protocol

from iftplan.cardinality import log2_choose, transposable_tile
from iftplan.errors import InfeasibleError, InputError

Matrices = tuple[tuple[int, int], ...]
"""Shapes (inputs m, outputs n) of the masked matrices of one layer."""


class MaskStructure(Protocol):
    """What a mask may look like.

    Attributes:
        multiples: what the inputs and the outputs of a masked matrix must be divisible by.
    """

    @property
    def multiples(self) -> tuple[int, int]: ...  # noqa: D102  (above)

    def close(self, matrices: Matrices, budget: int) -> int:
        """The most weights, at most `budget`, that a mask of this structure can keep."""

    def step(self, matrices: Matrices) -> int:
        """How many weights come and go together."""

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits needed to name one mask with `nnz` weights."""


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Any set of weights."""

    @property
    def multiples(self) -> tuple[int, int]:
        """Any size."""
        return 1, 1

    def close(self, matrices: Matrices, budget: int) -> int:
        """Every count is possible."""
        return min(budget, _numel(matrices))

    def step(self, matrices: Matrices) -> int:
        """One by one."""
        return 1

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """log2 C(N, nnz)."""
        return log2_choose(_numel(matrices), nnz)

    def __str__(self) -> str:
        return "unstructured"


@dataclass(frozen=True, slots=True)
class NM:
    """`kept` of every `of` weights along the inputs; if transposable, in every tile along both sides."""

    kept: int
    of: int
    transposable: bool = False

    @property
    def density(self) -> Fraction:
        """N/M."""
        return Fraction(self.kept, self.of)

    @property
    def multiples(self) -> tuple[int, int]:
        """Whole groups of M, along both sides where transposable."""
        return self.of, self.of if self.transposable else 1

    def close(self, matrices: Matrices, budget: int) -> int:
        """The one count that the pattern allows: N/M of every matrix."""
        for rows, columns in matrices:
            for size, name in ((rows, "inputs"), (columns, "outputs"))[: 1 + self.transposable]:
                if size % self.of:
                    up = -(-size // self.of) * self.of
                    raise InfeasibleError(
                        f"{self} masks need {name} divisible by {self.of}; {size} are given, the nearest is {up}."
                    )
        return _numel(matrices) * self.kept // self.of

    def step(self, matrices: Matrices) -> int:
        """All or nothing: the pattern fixes the count."""
        return _numel(matrices) * self.kept // self.of

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """(N_w/M)·log2 C(M, N), or per M×M tile where transposable."""
        if self.transposable:
            return _numel(matrices) // self.of**2 * log2(transposable_tile(self.kept, self.of))
        return _numel(matrices) // self.of * log2(comb(self.of, self.kept))

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}{'T' if self.transposable else ''}"


@dataclass(frozen=True, slots=True)
class Block:
    """Whole blocks of `height` inputs by `width` outputs."""

    height: int
    width: int

    @property
    def multiples(self) -> tuple[int, int]:
        """Whole blocks."""
        return self.height, self.width

    def close(self, matrices: Matrices, budget: int) -> int:
        """The budget rounded down to whole blocks."""
        for rows, columns in matrices:
            if rows % self.height or columns % self.width:
                raise InfeasibleError(
                    f"{self} masks do not tile a {rows}×{columns} weight (inputs × outputs); the nearest that they do is "
                    f"{-(-rows // self.height) * self.height}×{-(-columns // self.width) * self.width}."
                )
        area = self.height * self.width
        return min(budget, _numel(matrices)) // area * area

    def step(self, matrices: Matrices) -> int:
        """A block."""
        return self.height * self.width

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """log2 C(N/b, nnz/b)."""
        area = self.height * self.width
        return log2_choose(_numel(matrices) // area, nnz // area)

    def __str__(self) -> str:
        return f"block{self.height}x{self.width}"


@dataclass(frozen=True, slots=True)
class ConstantFanIn:
    """The same number of inputs for every output neuron."""

    @property
    def multiples(self) -> tuple[int, int]:
        """Any size."""
        return 1, 1

    def close(self, matrices: Matrices, budget: int) -> int:
        """The budget rounded down to one whole fan-in for all neurons."""
        return self._fan_in(matrices, budget) * sum(n for _, n in matrices)

    def step(self, matrices: Matrices) -> int:
        """One input of every neuron."""
        return sum(n for _, n in matrices)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """n·log2 C(m, f), summed over the matrices."""
        fan_in = self._fan_in(matrices, nnz)
        return sum(n * log2_choose(m, fan_in) for m, n in matrices)

    def _fan_in(self, matrices: Matrices, nnz: int) -> int:
        neurons = sum(n for _, n in matrices)
        return min(nnz // neurons, min(m for m, _ in matrices)) if neurons else 0

    def __str__(self) -> str:
        return "fan-in"


_FORMS = "unstructured, 2:4, 2:4T (transposable), block4x4, fan-in"


def parse_mask(text: str) -> MaskStructure:
    """Read a mask structure: `unstructured`, `2:8`, `2:8T`, `block4x4` or `fan-in`.

    Raises:
        InputError: none of these, or a pattern that keeps more than there is.

    Example:
        >>> parse_mask("2:8T")
        NM(kept=2, of=8, transposable=True)
    """
    if match := re.fullmatch(r"(\d+):(\d+)(T?)", text):
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept <= of or of > 64:
            raise InputError(
                f"mask structure {text!r}: N:M keeps at least 1 and at most M weights of M, and M is at most 64; the nearest is {min(max(kept, 1), max(min(of, 64), 1))}:{max(min(of, 64), 1)}."
            )
        return NM(kept, of, bool(match[3]))
    if match := re.fullmatch(r"block([1-9]\d*)x([1-9]\d*)", text):
        return Block(int(match[1]), int(match[2]))
    match text:
        case "unstructured":
            return Unstructured()
        case "fan-in":
            return ConstantFanIn()
        case _:
            raise InputError(f"unknown mask structure {text!r}; structures are {_FORMS}.")


def _numel(matrices: Matrices) -> int:
    return sum(m * n for m, n in matrices)
