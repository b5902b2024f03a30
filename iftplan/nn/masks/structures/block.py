"""Masks of whole blocks: one row, whose units are blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from iftplan.masks.structures.block import Block
from iftplan.nn.masks.cells import cut, glue
from iftplan.nn.masks.structured import Masks, Shape
from iftplan.nn.masks.subsets import subset
from iftplan.nn.masks.tiles import Solver
from iftplan.nn.masks.top_k import top_k_mask


@dataclass(frozen=True, slots=True)
class Blocks:
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


class BlockMasks(Masks[Block]):
    """Masks that keep any blocks of full size, and all that hangs over the edge."""

    __slots__ = ()

    def draw(self, shape: Shape, nnz: int, generator: Generator) -> Tensor:
        """Random boolean matrix of whole blocks, and all of the edge.

        Args:
            shape: (outputs, inputs).
            nnz: a count of the structure.
            generator: of the random numbers.
        """
        mask = torch.ones(shape, dtype=torch.bool)
        whole = self._whole(mask)
        blocks = whole.numel() // self.structure.area
        chosen = subset(blocks, self._kept(mask, nnz), generator)
        if whole.numel():
            whole.copy_(self._of(chosen, whole))
        return mask

    def best(self, scores: Tensor, nnz: int, solver: Solver) -> Tensor:
        """Boolean matrix of the blocks with the largest sums, and all of the edge.

        Args:
            scores: (outputs, inputs), not negative.
            nnz: a count of the structure.
            solver: looked at by no such structure.
        """
        mask = torch.ones_like(scores, dtype=torch.bool)
        whole = self._whole(scores)
        if whole.numel():
            sums = cut(whole, self.structure.width, self.structure.height).sum((1, 2))
            chosen = top_k_mask(sums.view(1, -1), self._kept(scores, nnz))
            self._whole(mask).copy_(self._of(chosen, whole))
        return mask

    def holds(self, mask: Tensor) -> bool:
        """Whether blocks are whole or not there at all, and all of the edge is there."""
        whole = self._whole(mask)
        bottom, right = whole.shape
        edges = bool(mask[bottom:].all()) and bool(mask[:, right:].all())
        if not edges or not whole.numel():
            return edges
        flat = cut(whole, self.structure.width, self.structure.height).flatten(1)
        return bool((flat == flat[:, :1]).all())

    def layout(self, experts: int = 1) -> Blocks:
        """Layout with one row of all blocks."""
        return Blocks(self.structure.height, self.structure.width, experts)

    def _whole(self, matrix: Tensor) -> Tensor:
        """What blocks of full size cover."""
        (outputs, inputs), (height, width) = matrix.shape, self.structure.pattern
        return matrix[: outputs // width * width, : inputs // height * height]

    def _kept(self, matrix: Tensor, nnz: int) -> int:
        """How many blocks of full size stay."""
        edge = matrix.numel() - self._whole(matrix).numel()
        return (nnz - edge) // self.structure.area

    def _of(self, chosen: Tensor, whole: Tensor) -> Tensor:
        """The matrix of the chosen blocks."""
        width, height = self.structure.width, self.structure.height
        return glue(chosen.view(-1, 1, 1).expand(-1, width, height).contiguous(), whole)
