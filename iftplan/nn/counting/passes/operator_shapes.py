"""Shape rules of operators below the functions: what the dispatcher's own rules, written in Python, take SymPy to find.

A rule takes the operator's arguments and gives empty meta tensors of the right shape, dtype and strides, or None for anything
out of the ordinary. They cost nothing: who counts, counts the operator itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from iftplan.nn.meta.tensors import empty

Answer = Any
_aten = torch.ops.aten
_PLAIN = (Tensor, nn.Parameter)
_STATISTICAL = (torch.float32, torch.float64)
"""Whose means and deviations are of the same kind; those of shorter numbers are not."""


def operator_shape(func: Any, args: Sequence[Any], kwargs: Any) -> Answer | None:
    """Result of an operator on the meta device; None where there is no rule for it or for these arguments.

    Args:
        func: as the dispatcher has it.
        args: its positional arguments.
        kwargs: its named ones, with which no rule holds.
    """
    rule = _RULES.get(func)
    return None if rule is None or kwargs else rule(*args)


def _is_plain(tensor: Any) -> bool:
    """Whether a tensor is of the meta device, of numbers that are not whole, and lies in one piece."""
    return (
        type(tensor) in _PLAIN
        and tensor.is_meta
        and tensor.is_floating_point()
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
    )


def _same(input: Any, *others: Any) -> Tensor | None:
    """A result like the input, where every other tensor is as it is and every other value a number."""
    if not _is_plain(input):
        return None
    for other in others:
        alike = isinstance(other, Tensor) and _is_plain(other) and _alike(input, other)
        if not alike and type(other) not in (int, float, str, bool):
            return None
    return empty(input.shape, input.dtype)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype is other.dtype


def _in_place(input: Any, *others: Any) -> Tensor | None:
    return None if _same(input, *others) is None else input


def _batch_norm(input: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    weight, bias, mean, variance, training = rest[:5]
    channels = [t for t in (weight, bias, mean, variance) if t is not None]
    if training or not _is_plain(input) or input.dim() < 2 or input.dtype not in _STATISTICAL:
        return None
    if any(t.shape != input.shape[1:2] or t.dtype is not input.dtype for t in channels):
        return None
    stats = empty(input.shape[1:2], input.dtype)
    return empty(input.shape, input.dtype), stats, stats


def _mean(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor | None:
    if not _is_plain(input) or not dim or any(not -input.dim() <= d < input.dim() for d in dim):
        return None
    gone = {d % input.dim() for d in dim}
    if len(gone) < len(dim):
        return None
    kept = [1 if d in gone else size for d, size in enumerate(input.shape) if keepdim or d not in gone]
    return empty(kept, input.dtype)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    sizes = tuple(normalized_shape)
    if not _is_plain(input) or not sizes or input.shape[-len(sizes) :] != sizes:
        return None
    if any(t is not None and (t.shape != sizes or t.dtype is not input.dtype) for t in (weight, bias)):
        return None
    if input.dtype not in _STATISTICAL:
        return None
    rows = (*input.shape[: -len(sizes)], *(1,) * len(sizes))
    return empty(input.shape, input.dtype), empty(rows, input.dtype), empty(rows, input.dtype)


def _softmax(input: Tensor, dim: int, half_to_float: bool) -> Tensor | None:
    fits = not half_to_float and _is_plain(input) and -input.dim() <= dim < input.dim()
    return empty(input.shape, input.dtype) if fits else None


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor) -> Tensor | None:
    tensors = (input, mat1, mat2)
    if any(type(t) not in _PLAIN or not t.is_meta or t.layout is not torch.strided for t in tensors):
        return None
    if not input.dtype is mat1.dtype is mat2.dtype or mat1.dim() != 2 or mat2.dim() != 2:
        return None
    shape = (mat1.shape[0], mat2.shape[1])
    if mat1.shape[1] != mat2.shape[0] or tuple(input.shape) not in (shape, shape[1:]):
        return None
    return empty(shape, mat1.dtype)


_RULES: Final[MappingProxyType[Any, Callable[..., Answer | None]]] = MappingProxyType(
    dict.fromkeys(
        (
            *(_aten.relu.default, _aten.gelu.default, _aten.silu.default, _aten.sigmoid.default),
            *(_aten.tanh.default, _aten.hardswish.default, _aten.leaky_relu.default),
            *(_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor),
        ),
        _same,
    )
    | dict.fromkeys((_aten.relu_.default, _aten.add_.Tensor, _aten.mul_.Tensor), _in_place)
    | {_aten.native_batch_norm.default: _batch_norm, _aten.native_layer_norm.default: _layer_norm}
    | {_aten.mean.dim: _mean, _aten._softmax.default: _softmax, _aten.addmm.default: _addmm}
)
