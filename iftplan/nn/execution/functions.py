"""Linear layers and convolutions with sparse weights, as differentiable functions.

The weight is an ordinary dense tensor; what is kept of it is collected in every forward pass, and its gradient is
computed where it is kept and zero elsewhere. Where the kept values themselves are given, theirs is the gradient, and
nothing of the dense weight's size is touched.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from iftplan.base.errors import InputError
from iftplan.nn.execution.kernels.products import correlation, product
from iftplan.nn.execution.kernels.windows import ConvolutionWindows, Pair, convolution, samples
from iftplan.nn.execution.sparsity import Pattern, as_array


def sparse_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    pattern: Pattern,
    values: Tensor | None = None,
    *,
    dense_gradient: bool = False,
) -> Tensor:
    """`torch.nn.functional.linear` with what a pattern keeps of the weight.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs); not looked at where values are given.
        bias: (outputs,), or None.
        pattern: of the weight's mask.
        values: of the weight in the pattern's order (`kept_values`), instead of the weight.
        dense_gradient: whether the weight's gradient is computed off the mask too, which needs the weight.

    Raises:
        InputError: sizes or types are not the pattern's.
    """
    _check(x, x.shape[-1], bias, pattern, values)
    flat = x.reshape(-1, x.shape[-1])
    swept = pattern, samples(len(flat)), (0, 0)
    y = _swept(flat, weight, bias, values, swept, dense_gradient=dense_gradient)
    return y.view(*x.shape[:-1], -1)


def sparse_conv2d(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    pattern: Pattern,
    padding: Pair = (0, 0),
    values: Tensor | None = None,
    *,
    dense_gradient: bool = False,
) -> Tensor:
    """`torch.nn.functional.conv2d` (one group) with what a pattern keeps of the weight; channels-last inside.

    Args:
        x: (images, inputs, height, width); channels-last strides spare a copy.
        weight: (outputs, inputs, height, width); not looked at where values are given.
        bias: (outputs,), or None.
        pattern: of the weight's mask, with stride and dilation.
        padding: zeros on both sides.
        values: of the weight in the pattern's order (`kept_values`), instead of the weight.
        dense_gradient: whether the weight's gradient is computed off the mask too, which needs the weight.

    Raises:
        InputError: sizes or types are not the pattern's, or the kernel is larger than the padded input.
    """
    if x.dim() != 4:
        raise InputError(
            f"an input of size {tuple(x.shape)} is not a batch of images; it needs four dimensions."
        )
    images, channels, height, width = x.shape
    _check(x, channels, bias, pattern, values)
    windows = convolution(images, (height, width), pattern.kernel, pattern.stride, padding, pattern.dilation)
    pixels = x.permute(0, 2, 3, 1)
    y = _swept(pixels, weight, bias, values, (pattern, windows, padding), dense_gradient=dense_gradient)
    return y.view(images, *windows.target, -1).permute(0, 3, 1, 2)


def kept_values(weight: Tensor, pattern: Pattern) -> Tensor:
    """Weights that a pattern keeps of a dense weight, in the pattern's order; differentiable.

    Args:
        weight: (outputs, inputs), or (outputs, inputs, height, width).
        pattern: of the weight's mask.

    Returns:
        (slots,): the weights, and zeros where kernels need room.

    Raises:
        InputError: its shape or its type is not the pattern's.
    """
    packed = pattern.forward
    shape, expected = tuple(weight.shape), (packed.outputs, packed.channels, *pattern.kernel)
    if (*shape, *(1,) * (4 - len(shape))) != expected or _bits(weight) != packed.vectors.bits:
        raise InputError(
            f"a weight of size {shape} in {weight.dtype} was given for a mask of {expected[:2]} with kernel {expected[2:]} and {packed.vectors.bits} bits; pack the mask of this weight (pattern_of)."
        )
    if not torch.is_grad_enabled():
        return _collected(_dense(weight), pattern)
    values: Tensor = _Collect.apply(weight, pattern)  # type: ignore[no-untyped-call]
    return values


def _check(x: Tensor, channels: int, bias: Tensor | None, pattern: Pattern, values: Tensor | None) -> None:
    """Kernels read at addresses: what does not fit must not reach them."""
    packed = pattern.forward
    given = [t for t in (x, bias, values) if t is not None]
    if channels != packed.channels or any(_bits(t) != packed.vectors.bits for t in given):
        raise InputError(
            f"an input of {channels} channels in {x.dtype} was given to a sparse layer of {packed.channels} "
            f"channels in {packed.vectors.bits} bits; inputs, bias and values must have its size and type."
        )
    for name, tensor, size in (("bias", bias, packed.outputs), ("values", values, packed.slots)):
        if tensor is not None and tensor.numel() != size:
            raise InputError(
                f"{tensor.numel()} {name} were given to a sparse layer that has {size}; pass those of its pattern."
            )


_BITS: Final = MappingProxyType({torch.float32: 32, torch.float64: 64})
"""Of the types that kernels compute in."""


def _bits(tensor: Tensor) -> int:
    return _BITS.get(tensor.dtype, 0)


_Sweep = tuple[Pattern, ConvolutionWindows, Pair]
"""A mask, how its weight sweeps over the source, and with how many zeros around."""


def _swept(
    source: Tensor, weight: Tensor | None, bias: Tensor | None, values: Tensor | None, sweep: _Sweep, *, dense_gradient: bool
) -> Tensor:  # fmt: skip
    pattern, windows, _ = sweep
    y: Tensor
    if not torch.is_grad_enabled():  # autograd's part of a small layer would be a quarter
        if values is None:
            assert weight is not None
            values = kept_values(weight, pattern)
        return _forward(source, values, bias, pattern, windows)
    if dense_gradient and weight is not None:
        y = _Graded.apply(source, weight, bias, *sweep)  # type: ignore[no-untyped-call]
    else:
        if values is None:
            assert weight is not None
            values = kept_values(weight, pattern)
        y = _Product.apply(source, values, bias, pattern, windows)  # type: ignore[no-untyped-call]
    return y


class _Collect(Function):
    """Dense weight → kept values; the gradient is zero elsewhere, and lies in memory as the weight does."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, pattern: Pattern) -> Tensor:
        weight = _dense(weight)
        ctx.shape, ctx.strides = weight.shape, weight.stride()
        ctx.memory = pattern.memory(ctx.strides)
        return _collected(weight, pattern)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        flat = torch.from_numpy(ctx.memory.weights(as_array(gradient), torch.get_num_threads()))
        return flat.as_strided(ctx.shape, ctx.strides), None


def _dense(weight: Tensor) -> Tensor:
    """Values of a weight that fill a stretch of memory, copied where they do not."""
    weight = weight.detach()
    return weight if _is_dense(weight) else weight.contiguous()


def _collected(weight: Tensor, pattern: Pattern) -> Tensor:
    """(slots,): what is kept of a weight that fills a stretch of memory."""
    flat = weight.as_strided((weight.numel(),), (1,)).numpy()
    return torch.from_numpy(pattern.memory(weight.stride()).values(flat, torch.get_num_threads()))


def _is_dense(weight: Tensor) -> bool:
    """Whether its entries fill a stretch of memory, in any order of dimensions."""
    reached = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size > 1 and stride != reached:
            return False
        reached *= size
    return True


class _Product(Function):
    """Matrix × windows + bias; see `iftplan.nn.execution.kernels.products`."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        values: Tensor,
        bias: Tensor | None,
        pattern: Pattern,
        windows: ConvolutionWindows,
    ) -> Tensor:
        ctx.pattern, ctx.windows = pattern, windows
        ctx.save_for_backward(source, values)
        return _forward(source, values, bias, pattern, windows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        source, values = ctx.saved_tensors
        pattern, windows = ctx.pattern, ctx.windows
        to_source = to_values = to_bias = None
        if ctx.needs_input_grad[0]:
            to_source = _to_source(gradient, source, values, pattern, windows)
        if ctx.needs_input_grad[1]:
            array, threads = as_array(gradient), torch.get_num_threads()
            sums = correlation(pattern.forward, as_array(source), array, windows, threads)
            sums[pattern.padding] = 0
            to_values = torch.from_numpy(sums)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(0)
        return to_source, to_values, to_bias, None, None


class _Graded(Function):
    """The same of a dense weight, whose gradient is computed everywhere: what growth by gradients looks at."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pattern: Pattern,
        windows: ConvolutionWindows,
        padding: Pair,
    ) -> Tensor:
        values = kept_values(weight.detach(), pattern)
        ctx.pattern, ctx.windows, ctx.padding = pattern, windows, padding
        ctx.save_for_backward(source, weight, values)
        return _forward(source, values, bias, pattern, windows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        source, weight, values = ctx.saved_tensors
        pattern, windows = ctx.pattern, ctx.windows
        to_source = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_source = _to_source(gradient, source, values, pattern, windows)
        if ctx.needs_input_grad[1] and weight.dim() == 2:
            to_weight = gradient.T @ source
        elif ctx.needs_input_grad[1]:
            images = gradient.view(windows.images, *windows.target, -1).permute(0, 3, 1, 2)
            _, to_weight, _ = torch.ops.aten.convolution_backward(
                images, source.permute(0, 3, 1, 2), weight, None, pattern.stride, ctx.padding, pattern.dilation,
                False, (0, 0), 1, (False, True, False),
            )  # fmt: skip
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(0)
        return to_source, to_weight, to_bias, None, None, None


def _forward(
    source: Tensor, values: Tensor, bias: Tensor | None, pattern: Pattern, windows: ConvolutionWindows
) -> Tensor:
    """(columns, outputs)."""
    held = as_array(values)
    added = np.empty(0, held.dtype) if bias is None else as_array(bias)
    target = product(pattern.forward, held, as_array(source), windows, added, torch.get_num_threads())
    return torch.from_numpy(target).view(windows.columns, -1)


def _to_source(
    gradient: Tensor, source: Tensor, values: Tensor, pattern: Pattern, windows: ConvolutionWindows
) -> Tensor:
    """Gradient of the source, in its shape."""
    threads = torch.get_num_threads()
    turned = pattern.backward.values(as_array(values), threads)
    none = np.empty(0, turned.dtype)
    found = product(pattern.backward, turned, as_array(gradient), windows.backwards, none, threads)
    return torch.from_numpy(found).view(source.shape)
