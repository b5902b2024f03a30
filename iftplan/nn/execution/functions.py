"""Linear layers and convolutions with a sparse weight, as differentiable functions.

The weight is an ordinary dense tensor; what is kept of it is collected in every forward pass, and its gradient is
computed where it is kept and zero elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from iftplan.nn.execution.patterns import Pattern, as_array, as_matrix
from iftplan.nn.execution.products import Array, correlation, product
from iftplan.nn.execution.windows import Pair, Windows, convolution, samples


def sparse_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, values: Array | None = None
) -> Tensor:
    """`torch.nn.functional.linear` with what a pattern keeps of the weight.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,), or None.
        pattern: of the weight's mask.
        values: of the weight in the pattern's order, where they have been collected before.
    """
    flat = x.reshape(-1, x.shape[-1])
    y: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        flat, weight, bias, pattern, samples(len(flat)), values
    )
    return y.view(*x.shape[:-1], -1)


def sparse_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: Pattern,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    values: Array | None = None,
) -> Tensor:
    """`torch.nn.functional.conv2d` (one group) with what a pattern keeps of the weight; channels-last inside.

    Args:
        x: (images, inputs, height, width); channels-last strides spare a copy.
        weight: (outputs, inputs, height, width).
        bias: (outputs,), or None.
        pattern: of the weight's mask.
        stride: of the output.
        padding: zeros on both sides.
        dilation: between kernel positions.
        values: of the weight in the pattern's order, where they have been collected before.

    Raises:
        InputError: the kernel is larger than the padded input.
    """
    images, _, height, width = x.shape
    kernel = (weight.shape[2], weight.shape[3])
    windows = convolution(images, (height, width), kernel, stride, padding, dilation)
    pixels = x.permute(0, 2, 3, 1)
    y: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        pixels, as_matrix(weight), bias, pattern, windows, values
    )
    return y.view(images, *windows.target, -1).permute(0, 3, 1, 2)


class _Product(Function):
    """Matrix × windows + bias; see `iftplan.nn.execution.products`."""

    @staticmethod
    def forward(
        ctx: Any, source: Tensor, weight: Tensor, bias: Tensor | None,
        pattern: Pattern, windows: Windows, values: Array | None,
    ) -> Tensor:  # fmt: skip
        if values is None:
            values = pattern.forward.values(as_array(weight))
        added = np.empty(0, values.dtype) if bias is None else as_array(bias)
        ctx.pattern, ctx.windows, ctx.values, ctx.shape = pattern, windows, values, source.shape
        ctx.save_for_backward(source)
        target = product(pattern.forward, values, as_array(source), windows, added, torch.get_num_threads())
        return torch.from_numpy(target).view(windows.columns, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (source,) = ctx.saved_tensors
        pattern, windows, threads = ctx.pattern, ctx.windows, torch.get_num_threads()
        array = as_array(gradient)
        to_source = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            values = pattern.backward.values(ctx.values)
            none = np.empty(0, values.dtype)
            found = product(pattern.backward, values, array, windows.backwards, none, threads)
            to_source = torch.from_numpy(found).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            sums = correlation(pattern.forward, as_array(source), array, windows, threads)
            to_weight = torch.from_numpy(pattern.forward.matrix(sums)).view(pattern.forward.outputs, -1)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(0)
        return to_source, to_weight, to_bias, None, None, None
