"""Masks of whole diagonals: one row, whose units are diagonals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iftplan.masks.structures.diagonal import Diagonal
from iftplan.nn.masks.structured import RowMasks


@dataclass(frozen=True, slots=True)
class Diagonals:
    """Layout of all diagonals in one row; of a stack of experts, a row for each.

    Of a matrix that is as long as it is wide or longer, diagonal d has the entries ((d + j) mod outputs, j); of a wider
    one (i, (d + i) mod inputs).
    """

    experts: int = 1

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores of diagonals, (experts, diagonals): the sums of what is on them."""
        stack = self._lying(matrix.reshape(self.experts, -1, matrix.shape[1]))
        _, short, long = stack.shape
        return stack.gather(2, _places(short, long, stack.device).expand_as(stack)).sum(1)

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """Boolean matrix that keeps the chosen diagonals whole."""
        outputs, inputs = like.shape[0] // self.experts, like.shape[1]
        short, long = sorted((outputs, inputs))
        lying = torch.zeros(self.experts, short, long, dtype=rows.dtype, device=rows.device)
        spread = rows.view(self.experts, 1, long).expand(-1, short, -1)
        lying.scatter_(2, _places(short, long, rows.device).expand_as(lying), spread)
        return (lying.mT if outputs > inputs else lying).reshape(like.shape)

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of diagonals that each row keeps."""
        return nnz // self.experts // max(1, min(matrix.shape[0] // self.experts, matrix.shape[1]))

    def _lying(self, stack: Tensor) -> Tensor:
        """With the longer side last."""
        return stack.mT if stack.shape[1] > stack.shape[2] else stack


def _places(short: int, long: int, device: torch.device) -> Tensor:
    """(short, long): where along the longer side diagonal d crosses row i."""
    return (torch.arange(short, device=device).view(-1, 1) + torch.arange(long, device=device)) % max(1, long)


class DiagonalMasks(RowMasks[Diagonal]):
    """Masks that keep diagonals whole or nothing of them."""

    __slots__ = ()

    def layout(self, experts: int = 1) -> Diagonals:
        """Layout with one row of all diagonals."""
        return Diagonals(experts)
