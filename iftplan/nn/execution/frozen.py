"""Weights of a sparse layer copied for inference: few columns go through slices of rows, more through tiles of columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import Function

from iftplan.base.errors import InputError
from iftplan.nn.execution.functions import sparse_conv2d, sparse_linear
from iftplan.nn.execution.kernels.windows import Pair
from iftplan.nn.execution.rounding import ValueType, rounded
from iftplan.nn.execution.slices.formats import slice_rows
from iftplan.nn.execution.sparsity import Pattern, as_array

if TYPE_CHECKING:
    from iftplan.nn.execution.slices.products import SlicedMatrix

_FEW: Final = 6
"""Columns up to which slices of rows are faster than tiles of columns: read once, they cost as much for two as for one."""

_ONE: Final = (1, 1)


@dataclass(slots=True, eq=False)
class FrozenWeights:
    """Kept weights that change no more.

    Attributes:
        pattern: of the mask.
        values: what is computed with, in the pattern's order.
        kind: of what they were rounded to; None where they were not.
        kept: the rounded values, bfloat16 as its 16 bits; the values themselves where they were not rounded.
        scales: of the outputs, which whole numbers are multiplied with.
    """

    pattern: Pattern
    values: Tensor
    kind: ValueType | None
    kept: NDArray[Any]
    scales: NDArray[Any] | None
    _sliced: SlicedMatrix | None = field(default=None, repr=False)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`torch.nn.functional.linear` with these weights.

        Args:
            x: (..., inputs).
            weight: of the layer, whose gradient is not computed.
            bias: (outputs,), or None.
        """
        return self._run(
            x,
            weight,
            bias,
            lambda: self._few(x, bias),
            lambda: sparse_linear(x, None, bias, self.pattern, self.values),
        )

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair) -> Tensor:
        """`torch.nn.functional.conv2d` with these weights.

        Args:
            x: (images, inputs, height, width).
            weight: of the layer, whose gradient is not computed.
            bias: (outputs,), or None.
            padding: zeros on both sides.
        """

        def few() -> Tensor | None:
            if (self.pattern.kernel, self.pattern.stride, padding) != (_ONE, _ONE, (0, 0)):
                return None
            y = self._few(x.permute(0, 2, 3, 1), bias)
            return None if y is None else y.permute(0, 3, 1, 2)

        return self._run(
            x, weight, bias, few, lambda: sparse_conv2d(x, None, bias, self.pattern, padding, self.values)
        )

    def _run(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        few: Callable[[], Tensor | None],
        tiles: Callable[[], Tensor],
    ) -> Tensor:
        """The output by slices where they can and nobody needs a gradient, else by tiles."""
        if not torch.is_grad_enabled():
            y = few()
            return tiles() if y is None else y
        if self.kind is None and (x.requires_grad or (bias is not None and bias.requires_grad)):
            return tiles()
        with torch.no_grad():
            y = few()
            y = tiles() if y is None else y
        if self.kind is not None:
            # only a backward pass asks for what there is not; outputs alone are nobody's harm
            y = _Refusal.apply(y, self.kind, *(t for t in (x, weight, bias) if t is not None))  # type: ignore[no-untyped-call]
        return y

    def _few(self, x: Tensor, bias: Tensor | None) -> Tensor | None:
        """Products with the last dimension of x; None where there is more than the kernel takes, or nothing fits."""
        outputs, channels = self.pattern.mask.shape
        if x.shape[-1] != channels or x.numel() > _FEW * channels:
            return None
        if bias is not None and (bias.numel() != outputs or bias.dtype is not x.dtype):
            return None
        columns, added = x.contiguous(), None if bias is None else bias.contiguous()
        y = x.new_empty(*x.shape[:-1], outputs)
        self._matrix().multiply(
            x.numel() // channels, 8 * x.itemsize, columns.data_ptr(), 0 if added is None else added.data_ptr(),
            y.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return y

    def _matrix(self) -> SlicedMatrix:
        """The weights in slices; made when they are first asked for, as large batches never do."""
        if self._sliced is None:
            from iftplan.nn.execution.slices.products import SlicedMatrix

            mask, packed = self.pattern.mask, self.pattern.forward
            matrix = packed.matrix(self.kept).reshape(mask.shape)
            self._sliced = SlicedMatrix(*slice_rows(mask, matrix, packed.vectors), self.scales)
        return self._sliced


def freeze(pattern: Pattern, values: Tensor, kind: ValueType | None) -> FrozenWeights:
    """Kept weights for inference.

    Args:
        pattern: of the mask.
        values: in the pattern's order.
        kind: of what they are rounded to; None to leave them.
    """
    values = values.detach()
    if kind is None:
        return FrozenWeights(pattern, values, None, as_array(values), None)
    packed = pattern.forward
    # slots of padding hold zeros, which belong to any output
    outputs = torch.from_numpy(packed.places.clip(0) // pattern.mask.shape[1]).long()
    found = rounded(values, kind, outputs, packed.outputs)
    kept = found.kept.view(torch.int16) if kind == "bfloat16" else found.kept
    scales = None if found.scales is None else found.scales.numpy()
    return FrozenWeights(pattern, found.values, kind, kept.numpy(), scales)


class _Refusal(Function):
    """An output whose backward pass is refused."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, kind: ValueType, *given: Tensor) -> Tensor:
        ctx.kind = kind
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise InputError(
            f"weights rounded to {ctx.kind} are for inference, and a backward pass through them was asked for; train the model before it is rounded (execute_dense_ gives its own weights back), or call it under torch.no_grad()."
        )
