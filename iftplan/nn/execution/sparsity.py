"""A layer's mask, packed for the forward pass and for the input's gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iftplan.nn.execution.kernels.chains import Pair, chains_of
from iftplan.nn.execution.kernels.formats import MaskFormat, pack_mask, transpose_format
from iftplan.nn.execution.kernels.memory import Memory, Strides, memory_of
from iftplan.nn.execution.kernels.registers import instructions_here, vectors_of


@dataclass(slots=True, eq=False)
class Pattern:
    """Places of the kept weights of one mask, as kernels take them.

    Attributes:
        mask: outputs × (positions · inputs), channels running fastest.
        stride: of the convolution, height and width.
        dilation: of the convolution.
        forward: the packed mask.
        padding: slots of it that belong to no weight.
    """

    mask: NDArray[np.bool_]
    stride: Pair
    dilation: Pair
    forward: MaskFormat
    padding: NDArray[np.int64]
    _backward: MaskFormat | None = field(default=None, repr=False)
    _memories: dict[Strides, Memory] = field(default_factory=dict, repr=False)

    @property
    def kernel(self) -> Pair:
        """Height and width of the window."""
        return self.forward.chains.kernel

    @property
    def backward(self) -> MaskFormat:
        """The packed mask of the input's gradient; made when it is first asked for, as inference never does."""
        if self._backward is None:
            chains = chains_of(self.kernel, -self.dilation[0], self.stride[0])
            self._backward = transpose_format(self.mask, chains, self.forward)
        return self._backward

    def memory(self, strides: Strides) -> Memory:
        """Places of the values in a dense weight of these strides (in entries)."""
        if strides not in self._memories:
            self._memories[strides] = memory_of(self.forward, strides)
        return self._memories[strides]


def pattern_of(
    mask: Tensor,
    dtype: torch.dtype,
    instructions: str | None = None,
    *,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Pattern:
    """Pack a mask of a linear layer's weight (outputs, inputs) or a convolution's (outputs, inputs, height, width).

    Args:
        mask: boolean.
        dtype: of the weights, float32 or float64.
        instructions: see `iftplan.nn.execution.kernels.registers.vectors_of`; the machine's widest if not given.
        stride: of the convolution.
        dilation: of the convolution.

    Raises:
        InputError: numba is missing.
    """
    vectors = vectors_of(instructions or instructions_here(), 64 if dtype is torch.float64 else 32)
    matrix = _as_matrix(mask).numpy().copy()  # what is made of it later is of the mask as it is now
    kernel = cast(Pair, tuple(mask.shape[2:]) or (1, 1))
    forward = pack_mask(matrix, chains_of(kernel, dilation[0], stride[0]), vectors)
    return Pattern(matrix, stride, dilation, forward, np.flatnonzero(forward.places < 0))


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Values of a tensor as a flat array."""
    array: NDArray[Any] = tensor.detach().contiguous().numpy().reshape(-1)
    return array


def _as_matrix(mask: Tensor) -> Tensor:
    """Outputs × (positions · inputs)."""
    return mask if mask.dim() == 2 else mask.permute(0, 2, 3, 1).reshape(mask.shape[0], -1)
