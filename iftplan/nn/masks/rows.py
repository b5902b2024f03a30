"""How a mask structure sees a weight: as rows of units, of which every row keeps equally many.

Algorithms choose so many units of each row and know nothing else of structure: unstructured masks are one row
of weights, N:M masks a row per group of M, constant fan-in a row per neuron, blocks one row of whole blocks, channels one
row of outputs. What no row can be chosen of alone, transposable tiles and what hangs over an edge, is chosen for a whole
matrix by `iftplan.nn.masks.best.choose`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, MaskStructure, Unstructured


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
class Tiles:
    """Layout of all blocks of `height` inputs by `width` outputs in one row, or in one for each expert."""

    height: int
    width: int
    experts: int = 1

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores of blocks, (experts, blocks): the sums of what is in them."""
        outputs, inputs = matrix.shape
        tiles = matrix.reshape(outputs // self.width, self.width, inputs // self.height, self.height)
        return tiles.sum((1, 3)).view(self.experts, -1)

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """Boolean matrix that keeps the chosen blocks whole."""
        outputs, inputs = like.shape
        blocks = rows.reshape(outputs // self.width, 1, inputs // self.height, 1)
        whole = blocks.expand(-1, self.width, -1, self.height)
        return whole.reshape(outputs, inputs)

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of blocks that each row keeps."""
        return nnz // (self.height * self.width) // self.experts


@dataclass(frozen=True, slots=True)
class Neurons:
    """Layout of all outputs in one row; of a stack of experts, a row for each."""

    experts: int = 1

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores of outputs, (experts, outputs): the sums over their inputs."""
        return matrix.sum(1).view(self.experts, -1)

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """Boolean matrix that keeps the chosen outputs whole."""
        return rows.reshape(-1, 1).repeat(1, like.shape[1])

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of outputs that each row keeps."""
        return nnz // matrix.shape[1] // self.experts


def layout_of(structure: MaskStructure, experts: int = 1) -> Layout:
    """The layout in which masks of a structure are chosen, in every one of so many experts alike.

    Raises:
        InputError: masks of that structure are not chosen row by row.
    """
    match structure:
        case Unstructured():
            return Flat(experts)
        case ConstantFanIn():
            return Groups()
        case Channel():
            return Neurons(experts)
        case Block():
            return Tiles(structure.height, structure.width, experts)
        case NM() if not structure.transposable:
            return Groups(structure.of, structure.kept)
        case _:
            raise InputError(
                f"masks of structure {structure} are not chosen row by row; train them with static, ste, srste or transposable, or take {str(structure).replace('T', '')}."
            )
