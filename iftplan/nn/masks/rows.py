"""How a mask structure sees a weight: as rows of units, of which every row keeps equally many.

Algorithms choose so many units of each row and know nothing else of structure: unstructured masks are one row
of weights, N:M masks a row per group of M, constant fan-in a row per neuron, blocks one row of whole blocks. What no row
can be chosen of alone, transposable tiles and what hangs over an edge, is chosen for a whole matrix by
`iftplan.nn.masks.best.choose`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Layout(Protocol):
    """Rows of units of one weight matrix (outputs, inputs)."""

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores of units, (rows, units): sums where a unit is more than one weight."""

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """The boolean matrix, of `like`'s shape, that keeps the chosen units."""

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of units that each row keeps where `nnz` weights stay."""


@dataclass(frozen=True, slots=True)
class Flat:
    """Layout of all weights in one row; of a stack of experts, a row for each.

    Attributes:
        experts: how many there are.
    """

    experts: int = 1

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores as (experts, weights)."""
        return matrix.reshape(self.experts, -1)

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """The chosen weights in the matrix's shape."""
        return rows.view(like.shape)

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of weights that each row keeps: every weight is a unit."""
        return nnz // self.experts


@dataclass(frozen=True, slots=True)
class Groups:
    """Layout with a row for every `size` inputs side by side; all inputs of a neuron where size is 0.

    Attributes:
        size: inputs of a group.
        kept: how many of them a group keeps, unless it is short; 0 where the count says so.
    """

    size: int = 0
    kept: int = 0

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores as (groups, size)."""
        return matrix.reshape(-1, self.size or matrix.shape[1])

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """The chosen weights in the matrix's shape."""
        return rows.view(like.shape)

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of weights that each group keeps: an equal part."""
        return self.kept or nnz // (matrix.numel() // (self.size or matrix.shape[1]))


@dataclass(frozen=True, slots=True)
class Whole:
    """The matrix as it is, for algorithms that choose in all of it at once."""

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores of the matrix itself, (outputs, inputs)."""
        return matrix

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """The chosen matrix itself."""
        return rows

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of weights that stay."""
        return nnz
