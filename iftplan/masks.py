"""Mask structures as values: what a mask may look like, its exact counts, and how many there are.

Shapes are (inputs m, outputs n). A pattern that does not divide a shape is refused; with the suffix `+pad` the weight is
thought of as filled up to whole patterns, and what hangs over the edge keeps as much as its pattern allows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import comb, log2
from typing import Protocol

from iftplan.cardinality import log2_choose, tile_masks
from iftplan.errors import InfeasibleError, InputError

Matrices = tuple[tuple[int, int], ...]
"""Shapes (inputs m, outputs n) of the masked matrices of one layer."""


class MaskStructure(Protocol):
    """What a mask may look like.

    Attributes:
        multiples: what the inputs and the outputs of a masked matrix must be divisible by.
        keeps_transposed: whether the transposed mask has the structure too. The gradient of a layer's inputs multiplies
            by the transposed weight, so that is whether hardware for the structure computes it sparsely as well.
    """

    @property
    def multiples(self) -> tuple[int, int]: ...  # noqa: D102  (above)
    @property
    def keeps_transposed(self) -> bool: ...  # noqa: D102

    def counts(self, matrices: Matrices) -> range:
        """Every number of weights that a mask of this structure can keep.

        Raises:
            InfeasibleError: the structure does not fit the shapes; names the nearest that it does.
        """

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits needed to name one mask with `nnz` weights."""

    def close(self, matrices: Matrices, budget: int) -> int:
        """The most weights, at most `budget`, that a mask of this structure can keep.

        Raises:
            InfeasibleError: it keeps more than that whatever is chosen.
        """
        counts = self.counts(matrices)
        if budget < counts.start:
            raise InfeasibleError(
                f"{self} masks keep at least {counts.start} of these {_numel(matrices)} weights, and the budget is {budget}."
            )
        return counts[min(len(counts) - 1, (budget - counts.start) // counts.step)]


@dataclass(frozen=True, slots=True)
class Unstructured(MaskStructure):
    """Any set of weights."""

    @property
    def multiples(self) -> tuple[int, int]:
        """Any size."""
        return 1, 1

    @property
    def keeps_transposed(self) -> bool:
        """Any set is any set."""
        return True

    def counts(self, matrices: Matrices) -> range:
        """Every count is possible."""
        return range(_numel(matrices) + 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """log2 C(N, nnz)."""
        return log2_choose(_numel(matrices), nnz)

    def __str__(self) -> str:
        return "unstructured"


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
        """N/M."""
        return Fraction(self.kept, self.of)

    @property
    def multiples(self) -> tuple[int, int]:
        """Whole groups of M, along both sides where transposable; any size where padded."""
        return (1, 1) if self.padded else (self.of, self.of if self.transposable else 1)

    @property
    def keeps_transposed(self) -> bool:
        """By definition of transposable, and by no other N:M mask."""
        return self.transposable

    def counts(self, matrices: Matrices) -> range:
        """From every group short to every group whole."""
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
        """Groups, or tiles, of full size."""
        along, of = self.size
        return sum((m // of) * (n // along) for m, n in matrices)

    def short(self, matrices: Matrices, nnz: int) -> int:
        """How many groups, or tiles, are short in a mask with `nnz` weights."""
        return (self.counts(matrices)[-1] - nnz) // self.step

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """(N_w/M)·log2 C(M, N), or per M×M tile where transposable; and which groups are short."""
        groups, short = self.groups(matrices), self.short(matrices, nnz)
        whole = (groups - short) * self._log2_group(self.kept) + short * self._log2_group(self.kept - 1)
        return whole + log2_choose(groups, short) + sum(self._log2_edges(m, n) for m, n in matrices)

    def edges(self, inputs: int, outputs: int) -> tuple[tuple[int, int, int], ...]:
        """(how many, inputs, outputs) of each kind of group or tile that hangs over the edge."""
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
                        f"{self} masks need {name} divisible by {self.of}; {size} are given, the nearest is {up}, and {self}{_PAD} fills up."
                    )

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}{'T' * self.transposable}{_PAD * self.padded}"


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
        """Whole blocks; any size where padded."""
        return (1, 1) if self.padded else (self.height, self.width)

    @property
    def keeps_transposed(self) -> bool:
        """A block transposed is a block."""
        return True

    @property
    def area(self) -> int:
        """Weights of a block."""
        return self.height * self.width

    def blocks(self, matrices: Matrices) -> int:
        """Blocks of full size."""
        return sum((m // self.height) * (n // self.width) for m, n in matrices)

    def counts(self, matrices: Matrices) -> range:
        """What hangs over the edge, and any number of blocks."""
        for rows, columns in () if self.padded else matrices:
            if rows % self.height or columns % self.width:
                raise InfeasibleError(
                    f"{self} masks do not tile a {rows}×{columns} weight (inputs × outputs); the nearest that they do is "
                    f"{-(-rows // self.height) * self.height}×{-(-columns // self.width) * self.width}, and {self}{_PAD} keeps what hangs over."
                )
        whole = self.blocks(matrices) * self.area
        edge = _numel(matrices) - whole
        return range(edge, edge + whole + 1, self.area)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """log2 C(N/b, nnz/b)."""
        chosen = (nnz - self.counts(matrices).start) // self.area
        return log2_choose(self.blocks(matrices), chosen)

    def __str__(self) -> str:
        return f"block{self.height}x{self.width}{_PAD * self.padded}"


@dataclass(frozen=True, slots=True)
class ConstantFanIn(MaskStructure):
    """The same number of inputs for every output neuron."""

    @property
    def multiples(self) -> tuple[int, int]:
        """Any size."""
        return 1, 1

    @property
    def keeps_transposed(self) -> bool:
        """Inputs feed differently many neurons."""
        return False

    def counts(self, matrices: Matrices) -> range:
        """One input of every neuron at a time, up to the matrix with the fewest."""
        neurons = sum(n for _, n in matrices)
        return range(0, neurons * min((m for m, _ in matrices), default=0) + 1, neurons or 1)

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """n·log2 C(m, f), summed over the matrices."""
        neurons = sum(n for _, n in matrices)
        return sum(n * log2_choose(m, nnz // neurons) for m, n in matrices) if neurons else 0.0

    def __str__(self) -> str:
        return "fan-in"


@dataclass(frozen=True, slots=True)
class Channel(MaskStructure):
    """Whole output channels: a neuron, or a filter, keeps all of its inputs or none."""

    @property
    def multiples(self) -> tuple[int, int]:
        """Any size."""
        return 1, 1

    @property
    def keeps_transposed(self) -> bool:
        """What is left is a smaller dense matrix, whichever way it lies."""
        return True

    def counts(self, matrices: Matrices) -> range:
        """One channel at a time."""
        inputs = {m for m, _ in matrices}
        if len(inputs) > 1:
            raise InfeasibleError(
                f"{self} masks need matrices with equally many inputs, and these have {' and '.join(map(str, sorted(inputs)))}; take fan-in, or a family with one matrix, such as wide."
            )
        return range(0, _numel(matrices) + 1, max(inputs, default=1))

    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """log2 C(n, c)."""
        return log2_choose(sum(n for _, n in matrices), nnz // self.counts(matrices).step)

    def __str__(self) -> str:
        return "channel"


_PAD = "+pad"
_FORMS = f"unstructured, 2:4, 2:4T (transposable), block4x4, fan-in, channel; 2:4{_PAD}, 2:4T{_PAD} and block4x4{_PAD} for shapes that do not divide"


def parse_mask(text: str) -> MaskStructure:
    """Read a mask structure: `unstructured`, `2:8`, `2:8T`, `block4x4`, `fan-in` or `channel`; `2:8T+pad`.

    Raises:
        InputError: none of these, or a pattern that keeps more than there is.

    Example:
        >>> parse_mask("2:8T")
        NM(kept=2, of=8, transposable=True, padded=False)
    """
    padded = text.endswith(_PAD)
    pattern = text.removesuffix(_PAD)
    if match := re.fullmatch(r"(\d+):(\d+)(T?)", pattern):
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept <= of or of > 64:
            raise InputError(
                f"mask structure {text!r}: N:M keeps at least 1 and at most M weights of M, and M is at most 64; the nearest is {min(max(kept, 1), max(min(of, 64), 1))}:{max(min(of, 64), 1)}."
            )
        return NM(kept, of, bool(match[3]), padded)
    if match := re.fullmatch(r"block([1-9]\d*)x([1-9]\d*)", pattern):
        return Block(int(match[1]), int(match[2]), padded)
    match text:
        case "unstructured":
            return Unstructured()
        case "fan-in":
            return ConstantFanIn()
        case "channel":
            return Channel()
        case _:
            raise InputError(f"unknown mask structure {text!r}; structures are {_FORMS}.")


def _numel(matrices: Matrices) -> int:
    return sum(m * n for m, n in matrices)
