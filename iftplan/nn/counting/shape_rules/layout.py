"""Shape rules of work that only moves numbers: joining, rolling, counting up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from iftplan.nn.counting.passes.ledger import Ledger
from iftplan.nn.meta.tensors import empty

Rule = Callable[..., Any]


def _cat(ledger: Ledger, tensors: Sequence[Tensor], dim: int = 0, **named: Any) -> Any:
    if named or not isinstance(tensors, list | tuple) or not tensors or not isinstance(dim, int):
        return NotImplemented
    tensors = [t for t in tensors if t.shape != (0,)] or tensors[:1]  # torch passes over such empty ones
    first = tensors[0]
    rank = first.dim()
    if not -rank <= dim < rank or not all(_joins(first, t, dim % rank) for t in tensors):
        return NotImplemented
    shape = list(first.shape)
    shape[dim] = sum(t.shape[dim] for t in tensors)
    return empty(shape, first.dtype)


def _joins(first: Tensor, tensor: Tensor, dim: int) -> bool:
    """Whether `tensor` continues `first` along `dim`, and nothing asks for a channels-last result."""
    if tensor.dtype is not first.dtype or not tensor.is_meta or tensor.dim() != first.dim():
        return False
    if tensor.dim() in (4, 5) and tensor.stride(1) <= tensor.stride(-1):
        return False
    return all(a == b or d == dim for d, (a, b) in enumerate(zip(first.shape, tensor.shape, strict=True)))


def _roll(ledger: Ledger, input: Tensor, shifts: Any, dims: Any = None) -> Any:
    if not input.is_meta or not input.is_contiguous():
        return NotImplemented
    pairs = isinstance(shifts, tuple | list) and isinstance(dims, tuple | list) and len(shifts) == len(dims)
    valid = pairs and all(-input.dim() <= d < input.dim() for d in dims)
    return empty(input.shape, input.dtype) if valid else NotImplemented


def _arange(ledger: Ledger, *bounds: Any, device: Any = None, dtype: Any = None, **named: Any) -> Any:
    if named or len(bounds) > 2 or not bounds or not all(type(b) is int for b in bounds) or device is None:
        return NotImplemented
    start, end = bounds if len(bounds) == 2 else (0, bounds[0])
    if torch.device(device).type != "meta" or end < start:
        return NotImplemented
    return empty((end - start,), dtype or torch.int64)


LAYOUT: Final[MappingProxyType[Any, Rule]] = MappingProxyType(
    {torch.cat: _cat, torch.roll: _roll, Tensor.roll: _roll, torch.arange: _arange}
)
