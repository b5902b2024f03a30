"""Masks of whole outputs: one row, whose units are neurons or filters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iftplan.masks.structures.channel import Channel
from iftplan.nn.masks.structured import RowMasks


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


class ChannelMasks(RowMasks[Channel]):
    """Masks that keep outputs whole or nothing of them."""

    __slots__ = ()

    def layout(self, experts: int = 1) -> Neurons:
        """Layout with one row of all outputs."""
        return Neurons(experts)
