"""What every mask structure answers; each is a frozen value in a file of `iftplan.masks.structures`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import ClassVar, Self

from iftplan.base.errors import InfeasibleError

Matrices = tuple[tuple[int, int], ...]
"""Shapes (inputs m, outputs n) of the masked matrices of one layer."""

PAD = "+pad"
"""The suffix of patterns whose shapes may leave a remainder."""


def numel(matrices: Matrices) -> int:
    """Number of weights of all matrices.

    Example:
        >>> numel(((2, 3), (4, 5)))
        26
    """
    return sum(m * n for m, n in matrices)


def unit_bits(kept: int, units: int) -> int:
    """Bits that name kept units among all: a bit for each unit, or an index for each kept one, whichever is less.

    Example:
        >>> unit_bits(3, 1024), unit_bits(1000, 1024)
        (30, 1024)
    """
    return min(units, kept * index_width(units))


def row_bits(kept: int, rows: int, columns: int) -> int:
    """Bits of compressed sparse rows, a column for each kept unit and where each row begins; of a bitmap, if that is less.

    Args:
        kept: units that are kept.
        rows: of all matrices.
        columns: of the widest.
    """
    return min(rows * columns, kept * index_width(columns) + (rows + 1) * index_width(kept + 1))


def index_width(choices: int) -> int:
    """Bits of an index among so many.

    Example:
        >>> index_width(1), index_width(4), index_width(5)
        (0, 2, 3)
    """
    return max(choices - 1, 0).bit_length()


class MaskStructure(ABC):
    """Structure of a mask: which sets of weights can be kept together.

    A structure is its notation (`parse`, `str`), its counts, and how many masks there are of a count. What it does to
    tensors is in the file of the same name in `iftplan.nn.masks.structures`. Everything that has a default here is
    what holds of a structure that says nothing of it.

    Attributes:
        notations: examples of how it is written, for messages.
        pads: whether it can be written with the suffix `+pad` too, for shapes that leave a remainder.
    """

    __slots__ = ()

    notations: ClassVar[tuple[str, ...]]
    pads: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> Self | None:
        """Structure of a notation; None if the notation belongs to another structure.

        Raises:
            InputError: it is this one's notation, of a mask that cannot be.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Notation in plans and on the command line, which `parse` reads."""

    @property
    @abstractmethod
    def keeps_transposed(self) -> bool:
        """Whether the transposed mask has the structure too.

        The gradient of a layer's inputs multiplies by the transposed weight, so that is whether hardware for the
        structure computes it sparsely as well.
        """

    @property
    def density(self) -> Fraction | None:
        """Density that all masks of the structure have, a fraction of 1; None where they may have any."""
        return None

    @property
    def rigid(self) -> bool:
        """Whether no pattern can keep less, so that a budget has to be met by widths or ranks."""
        return False

    @property
    def pattern(self) -> tuple[int, int]:
        """Inputs and outputs of the pattern that tiles a weight; a single weight, unless a structure says otherwise."""
        return 1, 1

    @property
    def multiples(self) -> tuple[int, int]:
        """Multiples that inputs and outputs must be: whole patterns."""
        return self.pattern

    @property
    def block(self) -> tuple[int, int] | None:
        """Inputs and outputs of the blocks that a mask keeps whole or not at all; None where there are none."""
        return None

    @property
    def directed(self) -> bool:
        """Whether masks depend on which side of a weight the inputs are."""
        return True

    @property
    def filled(self) -> MaskStructure | None:
        """The same structure for shapes that leave a remainder; None where there is none, or this is one."""
        return None

    @abstractmethod
    def counts(self, matrices: Matrices) -> range:
        """Numbers of weights that a mask of this structure can keep.

        Raises:
            InfeasibleError: the structure does not fit the shapes; names the nearest that it does.
        """

    @abstractmethod
    def log2_masks(self, matrices: Matrices, nnz: int) -> float:
        """Bits needed to name one mask with `nnz` weights."""

    def index_bits(self, matrices: Matrices, nnz: int) -> int:
        """Bits of the indices that a storage of the kept weights alone needs: a bit for each weight, unless a structure says less."""
        return numel(matrices)

    def close(self, matrices: Matrices, budget: int) -> int:
        """Largest number of weights, at most `budget`, that a mask of this structure can keep.

        Raises:
            InfeasibleError: it keeps more than that whatever is chosen.
        """
        counts = self.counts(matrices)
        if budget < counts.start:
            raise InfeasibleError(
                f"{self} masks keep at least {counts.start} of these {numel(matrices)} weights, but the budget is "
                f"{budget}; choose a lower sparsity."
            )
        return min(counts[-1], counts.start + (budget - counts.start) // counts.step * counts.step)

    def shares(self, matrices: Matrices, nnz: int) -> tuple[int, ...]:
        """Number of weights that each of one layer's matrices keeps; they add up to `nnz`.

        In proportion to what the matrices hold, in whole steps of the structure, the largest remainders first.

        Raises:
            InfeasibleError: the structure does not fit the shapes.
        """
        choices = [self.counts((matrix,)) for matrix in matrices]
        steps = (nnz - sum(each.start for each in choices)) // choices[0].step
        shared = _apportion(steps, [len(each) - 1 for each in choices])
        return tuple(each.start + n * each.step for each, n in zip(choices, shared, strict=True))

    def short(self, matrices: Matrices, nnz: int) -> int:
        """Number of patterns that keep less than they can in a mask with `nnz` weights; 0 unless a structure has some."""
        return 0

    def shortage(self, layers: Iterable[tuple[Matrices, int]]) -> str:
        """Sentence on the part of all patterns that is short; empty where nothing is.

        Args:
            layers: the matrices of each layer, and how many weights it keeps.
        """
        return ""


def _apportion(total: int, capacities: Sequence[int]) -> tuple[int, ...]:
    """Largest remainders; among equals the first."""
    exact = [Fraction(total * c, sum(capacities) or 1) for c in capacities]
    counts = [int(e) for e in exact]
    order = sorted(range(len(counts)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return tuple(counts)
