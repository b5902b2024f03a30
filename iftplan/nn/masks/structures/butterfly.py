"""Block-diagonal and butterfly masks: the one mask that each shape has."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from iftplan.masks.structures.butterfly import Butterfly
from iftplan.nn.masks.structured import Masks, Shape
from iftplan.nn.masks.tiles import Solver


class ButterflyMasks(Masks[Butterfly]):
    """Masks that follow from their shape."""

    __slots__ = ()

    def draw(self, shape: Shape, nnz: int, generator: Generator) -> Tensor:
        """The boolean matrix of `shape`.

        Args:
            shape: (outputs, inputs).
            nnz: the count of the structure.
            generator: asked for nothing.
        """
        return self._only(shape, torch.device("cpu"))

    def best(self, scores: Tensor, nnz: int, solver: Solver) -> Tensor:
        """The boolean matrix of the scores' shape.

        Args:
            scores: (outputs, inputs); not looked at.
            nnz: the count of the structure.
            solver: looked at by no such structure.
        """
        return self._only((scores.shape[0], scores.shape[1]), scores.device)

    def holds(self, mask: Tensor) -> bool:
        """Whether a mask is the one of its shape."""
        return torch.equal(mask, self._only((mask.shape[0], mask.shape[1]), mask.device))

    def _only(self, shape: Shape, device: torch.device) -> Tensor:
        structure, (outputs, inputs) = self.structure, shape
        column = torch.arange(inputs, device=device)
        row = torch.arange(outputs, device=device) * structure.blocks // outputs
        block = column % structure.blocks if structure.shuffled else column * structure.blocks // inputs
        apart = row.unsqueeze(1) ^ block
        one_bit = (apart & (apart - 1)) == 0  # or none
        return one_bit & (apart < structure.stride)
