"""A layer's mask, packed for the forward pass and for the input's gradient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iftplan.nn.execution.formats import Format, packed, turned
from iftplan.nn.execution.rows import Rows, rows_of
from iftplan.nn.execution.vectors import instructions_here, vectors_of


@dataclass(slots=True, eq=False)
class Pattern:
    """Where a weight is kept, as kernels take it.

    Attributes:
        mask: outputs × (positions · inputs), channels running fastest.
        kernel: height and width of the window.
        forward: the packed mask.
        padding: slots of it that belong to no weight.
    """

    mask: NDArray[np.bool_]
    kernel: tuple[int, int]
    forward: Format
    padding: NDArray[np.int64]
    _backward: Format | None = field(default=None, repr=False)
    _rows: Rows | None = field(default=None, repr=False)
    _inputs_first: Pattern | None = field(default=None, repr=False)

    @property
    def positions(self) -> int:
        """Of the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def backward(self) -> Format:
        """The packed mask of the input's gradient; made when it is first asked for, as inference never does."""
        if self._backward is None:
            self._backward = turned(self.mask, self.positions, self.forward)
        return self._backward

    @property
    def rows(self) -> Rows:
        """Where values belong, row by row; made for the first gradient of a dense weight."""
        if self._rows is None:
            self._rows = rows_of(self.mask, self.forward)
        return self._rows

    @property
    def inputs_first(self) -> Pattern:
        """The same values of a weight that is stored (inputs, outputs): to collect them from there, and put them back.

        Without it the dense weight would have to be transposed in every pass. No kernel computes with it.
        """
        if self._inputs_first is None:
            outputs, inputs = self.mask.shape
            places = self.forward.places.astype(np.int64)
            turned = np.where(places < 0, -1, places % inputs * outputs + places // inputs)
            stored = replace(self.forward, places=turned.astype(self.forward.places.dtype))
            self._inputs_first = Pattern(np.ascontiguousarray(self.mask.T), self.kernel, stored, self.padding)
        return self._inputs_first


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
    kernel = cast(tuple[int, int], tuple(mask.shape[2:]) or (1, 1))
    forward = packed(matrix, kernel[0] * kernel[1], vectors)
    return Pattern(matrix, kernel, forward, np.flatnonzero(forward.places < 0))


def as_matrix(weight: Tensor) -> Tensor:
    """A weight as outputs × (positions · inputs): no copy where it is channels-last already."""
    if weight.dim() == 2:
        return weight
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def as_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values, flat."""
    array: NDArray[Any] = tensor.detach().contiguous().reshape(-1).numpy()
    return array
