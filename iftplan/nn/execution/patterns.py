"""A layer's mask, packed for the forward pass and for the input's gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iftplan.nn.execution.formats import Format, packed, turned
from iftplan.nn.execution.vectors import instructions_here, vectors_of


@dataclass(slots=True, eq=False)
class Pattern:
    """Where a weight is kept, as kernels take it.

    Attributes:
        mask: outputs × (positions · inputs), channels running fastest.
        positions: of the window.
        forward: the packed mask.
    """

    mask: NDArray[np.bool_]
    positions: int
    forward: Format
    _backward: Format | None = field(default=None, repr=False)

    @property
    def backward(self) -> Format:
        """The packed mask of the input's gradient; made when it is first asked for, as inference never does."""
        if self._backward is None:
            self._backward = turned(self.mask, self.positions, self.forward)
        return self._backward


def pattern_of(mask: Tensor, dtype: torch.dtype, instructions: str | None = None) -> Pattern:
    """Pack a mask of a linear layer's weight (outputs, inputs) or a convolution's (outputs, inputs, height, width).

    Args:
        mask: boolean.
        dtype: of the weights, float32 or float64.
        instructions: see `iftplan.nn.execution.vectors.vectors_of`; the machine's widest if not given.

    Raises:
        InputError: numba is missing.
    """
    vectors = vectors_of(instructions or instructions_here(), 64 if dtype is torch.float64 else 32)
    matrix = as_matrix(mask).contiguous().numpy()
    positions = mask.shape[2:].numel()
    return Pattern(matrix, positions, packed(matrix, positions, vectors))


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as outputs × (positions · inputs): no copy where it is channels-last already."""
    if weight.dim() == 2:
        return weight
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values, flat."""
    array: NDArray[Any] = tensor.detach().contiguous().reshape(-1).numpy()
    return array
