"""Shape rules of work without contractions: activations, norms, arithmetic, means."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from types import MappingProxyType
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor

from iftplan.nn.counting.operators import formulas
from iftplan.nn.counting.passes.ledger import Ledger
from iftplan.nn.meta.tensors import elementwise, empty

Rule = Callable[..., Any]


def _like(input: Tensor) -> Tensor | None:
    """An empty tensor with the input's layout; None where torch would decide about it."""
    if not input.is_meta or not input.is_floating_point():
        return None
    return elementwise(input.dtype, input.shape, input)


def _activation(name: str) -> Rule:
    def rule(ledger: Ledger, input: Tensor, *options: Any, inplace: bool = False, **named: Any) -> Any:
        if "out" in named or "dtype" in named or not isinstance(input, Tensor):
            return NotImplemented
        result = input if inplace or any(option is True for option in options) else _like(input)
        if result is None or not input.is_floating_point():
            return NotImplemented
        ledger.elementwise[name] += input.numel()
        return result

    return rule


def _softmax(
    ledger: Ledger, input: Tensor, dim: Any = None, _stacklevel: int = 3, dtype: Any = None, **named: Any
) -> Any:
    if named or not isinstance(dim, int) or not isinstance(_stacklevel, int) or not input.is_meta:
        return NotImplemented
    if not input.is_floating_point() or not -input.dim() <= dim < input.dim():
        return NotImplemented
    ledger.elementwise["softmax"] += input.numel()
    return empty(input.shape, dtype or input.dtype)


def _dropout(
    ledger: Ledger, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    return NotImplemented if training and p else input


def _layer_norm(
    ledger: Ledger,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = None,
) -> Any:
    sizes = tuple(normalized_shape)
    if not input.is_meta or not input.is_floating_point() or input.shape[-len(sizes) :] != sizes:
        return NotImplemented
    if any(p is not None and p.shape != sizes for p in (weight, bias)):
        return NotImplemented
    ledger.elementwise["layer_norm"] += input.numel()
    return empty(input.shape, input.dtype)


def _channel_norm(name: str, channel_arguments: slice, training_at: int | None) -> Rule:
    """Batch and group norm: per-channel tensors at `channel_arguments` of what follows the input."""

    def rule(ledger: Ledger, input: Tensor, *rest: Any, **named: Any) -> Any:
        result = _like(input)
        training = named.get("training", False)
        if training_at is not None and len(rest) > training_at:
            training = rest[training_at]
        if result is None or training or input.dim() < 2:
            return NotImplemented
        channels = [*rest[channel_arguments], *(named.get(k) for k in ("weight", "bias"))]
        if any(isinstance(c, Tensor) and c.shape != input.shape[1:2] for c in channels):
            return NotImplemented
        ledger.elementwise[name] += input.numel()
        return result

    return rule


def _arithmetic(name: str, in_place: bool = False) -> Rule:
    """Two operands of one dtype, or one and a number that does not promote it; all else is left to torch."""

    def rule(ledger: Ledger, input: Any, other: Any, **named: Any) -> Any:
        if named or not _same_kind(input, other):
            return NotImplemented
        if not input.is_floating_point() and (name in ("div", "pow") or input.dtype is torch.bool):
            return NotImplemented
        return _combine(ledger, name, input.dtype, input, other, in_place)

    return rule


def _comparison(name: str) -> Rule:
    """Numbers of any dtype compare to booleans."""

    def rule(ledger: Ledger, input: Any, other: Any, **named: Any) -> Any:
        if named or not isinstance(input, Tensor) or not isinstance(other, Tensor | int | float):
            return NotImplemented
        return _combine(ledger, name, torch.bool, input, other, False)

    return rule


def _same_kind(input: Any, other: Any) -> bool:
    if not isinstance(input, Tensor):
        return False
    if isinstance(other, Tensor):
        return other.dtype is input.dtype and not input.is_complex()
    return isinstance(other, int) or (isinstance(other, float) and input.is_floating_point())


def _combine(ledger: Ledger, name: str, dtype: torch.dtype, input: Tensor, other: Any, in_place: bool) -> Any:
    operands = (input, other) if isinstance(other, Tensor) else (input,)
    shape = _shape(*operands)
    if shape is None or (in_place and shape != input.shape):
        return NotImplemented
    result = input if in_place else elementwise(dtype, shape, *operands)
    if result is None:
        return NotImplemented
    ledger.elementwise[name] += prod(shape)
    return result


def _shape(*operands: Tensor) -> tuple[int, ...] | None:
    """What meta tensors broadcast to; None if they do not, or are elsewhere."""
    first = operands[0].shape
    if not all(operand.is_meta for operand in operands):
        return None
    if all(operand.shape == first for operand in operands):
        return first
    try:
        return formulas.broadcast(*(operand.shape for operand in operands))
    except ValueError:
        return None


def _where(ledger: Ledger, condition: Tensor, input: Any = None, other: Any = None) -> Any:
    tensors = [t for t in (input, other) if isinstance(t, Tensor)]
    if not tensors or not _same_kind(tensors[0], other if tensors[0] is input else input):
        return NotImplemented
    shape = _shape(condition, *tensors)
    if shape is None or not all(t.is_contiguous() for t in (condition, *tensors)):
        return NotImplemented
    ledger.elementwise["where"] += prod(shape)
    return empty(shape, tensors[0].dtype)


def _masked_fill(ledger: Ledger, input: Tensor, mask: Tensor, value: Any) -> Any:
    shape = _shape(input, mask)
    if shape is None or not isinstance(value, int | float) or not input.is_contiguous():
        return NotImplemented
    if not input.is_floating_point() or mask.dtype is not torch.bool:
        return NotImplemented
    ledger.elementwise["masked_fill"] += prod(shape)
    return empty(shape, input.dtype)


def _reduction(name: str) -> Rule:
    def rule(ledger: Ledger, input: Tensor, dim: Any = None, keepdim: bool = False, **named: Any) -> Any:
        dims = (dim,) if isinstance(dim, int) else dim
        if named or not dims or not input.is_meta or not input.is_floating_point():
            return NotImplemented
        rank = input.dim()
        if not all(isinstance(d, int) and -rank <= d < rank for d in dims):
            return NotImplemented
        gone = {d % rank for d in dims}
        if len(gone) < len(dims):
            return NotImplemented
        ledger.elementwise[name] += input.numel()
        kept = [1 if k in gone else s for k, s in enumerate(input.shape) if keepdim or k not in gone]
        return empty(kept, input.dtype)

    return rule


def _global_average(dims: int) -> Rule:
    """An adaptive average of all positions, which torch computes as a mean."""

    def rule(ledger: Ledger, input: Tensor, output_size: Any) -> Any:
        whole = output_size == 1 or (isinstance(output_size, tuple | list) and [*output_size] == [1] * dims)
        if not whole or not input.is_meta or not input.is_floating_point() or not input.is_contiguous():
            return NotImplemented
        if input.dim() not in (dims + 1, dims + 2) or 0 in input.shape:
            return NotImplemented
        result = empty((*input.shape[:-dims], *(1,) * dims), input.dtype)
        ledger.elementwise["mean"] += result.numel()
        return result

    return rule


_T = Tensor
_ACTIVATIONS = {
    "relu": (F.relu, torch.relu, _T.relu),
    "relu6": (F.relu6,),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "mish": (F.mish,),
    "elu": (F.elu,),
    "hardswish": (F.hardswish,),
    "hardsigmoid": (F.hardsigmoid,),
    "hardtanh": (F.hardtanh,),
    "leaky_relu": (F.leaky_relu,),
    "softplus": (F.softplus,),
    "sigmoid": (F.sigmoid, torch.sigmoid, _T.sigmoid),
    "tanh": (F.tanh, torch.tanh, _T.tanh),
    "exp": (torch.exp, _T.exp),
    "log": (torch.log, _T.log),
    "sqrt": (torch.sqrt, _T.sqrt),
    "rsqrt": (torch.rsqrt, _T.rsqrt),
    "neg": (torch.neg, _T.neg, _T.__neg__),
    "abs": (torch.abs, _T.abs),
    "sin": (torch.sin, _T.sin),
    "cos": (torch.cos, _T.cos),
}
_ARITHMETIC = {
    "add": (torch.add, _T.add, _T.__add__, _T.__radd__),
    "sub": (torch.sub, _T.sub, _T.__sub__),
    "mul": (torch.mul, _T.mul, _T.__mul__, _T.__rmul__),
    "div": (torch.div, _T.div, _T.__truediv__),
    "pow": (torch.pow, _T.pow, _T.__pow__),
}
_COMPARISONS = {
    "lt": (torch.lt, _T.lt, _T.__lt__),
    "le": (torch.le, _T.le, _T.__le__),
    "gt": (torch.gt, _T.gt, _T.__gt__),
    "ge": (torch.ge, _T.ge, _T.__ge__),
    "eq": (torch.eq, _T.eq, _T.__eq__),
    "ne": (torch.ne, _T.ne, _T.__ne__),
}
_IN_PLACE = {
    "add": (_T.add_, _T.__iadd__),
    "sub": (_T.sub_, _T.__isub__),
    "mul": (_T.mul_, _T.__imul__),
    "div": (_T.div_, _T.__itruediv__),
}

ELEMENTWISE: Final[MappingProxyType[Any, Rule]] = MappingProxyType(
    {function: _activation(name) for name, functions in _ACTIVATIONS.items() for function in functions}
    | {function: _arithmetic(name) for name, functions in _ARITHMETIC.items() for function in functions}
    | {function: _arithmetic(name, True) for name, functions in _IN_PLACE.items() for function in functions}
    | {function: _comparison(name) for name, functions in _COMPARISONS.items() for function in functions}
    | {torch.where: _where, torch.masked_fill: _masked_fill, _T.masked_fill: _masked_fill}
    | dict.fromkeys((F.softmax, torch.softmax, _T.softmax), _softmax)
    | {function: _reduction("mean") for function in (torch.mean, _T.mean)}
    | {function: _reduction("sum") for function in (torch.sum, _T.sum)}
    | {F.adaptive_avg_pool2d: _global_average(2), F.adaptive_avg_pool3d: _global_average(3)}
    | {F.dropout: _dropout, F.layer_norm: _layer_norm}
    | {F.batch_norm: _channel_norm("batch_norm", slice(0, 4), 4)}
    | {F.group_norm: _channel_norm("group_norm", slice(1, 3), None)}
)
