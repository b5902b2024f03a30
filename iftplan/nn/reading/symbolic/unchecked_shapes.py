"""Sizes that have to agree where PyTorch's shape functions do not ask: writes of one tensor into parts of another.

On data these operators refuse what does not fit; on shapes alone they take anything. To ask whether two symbolic sizes
are equal is what writes their equation down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor


def ask_for_agreement(operator: str, args: Sequence[Any]) -> None:
    """Have the equations of a write written down, before it runs; nothing where the operator is none.

    Args:
        operator: qualified name, such as `aten::index_add`.
        args: its positional arguments.
    """
    rule = _RULES.get(operator.removesuffix("_"))
    if rule is not None:
        rule(args)


def _alike(pairs: Iterable[tuple[Any, Any]]) -> None:
    for one, other in pairs:
        bool(one == other)


def _besides(dim: int, written: Tensor, source: Tensor) -> None:
    """All sizes but that along the dimension that is written."""
    if written.dim() == source.dim() and written.dim():
        own = dim % written.dim()
        _alike((written.shape[i], source.shape[i]) for i in range(written.dim()) if i != own)


def _index(args: Sequence[Any]) -> None:
    _besides(args[1], args[0], args[3])


def _slice(args: Sequence[Any]) -> None:
    _besides(args[2] if len(args) > 2 else 0, args[0], args[1])


def _scatter(args: Sequence[Any]) -> None:
    """Where whole rows are scattered, rows are alike."""
    if isinstance(args[3], Tensor):
        _besides(args[1], args[0], args[2])
        _besides(args[1], args[0], args[3])


def _select(args: Sequence[Any]) -> None:
    own = args[2] % args[0].dim()
    _alike(zip((s for i, s in enumerate(args[0].shape) if i != own), args[1].shape, strict=True))


def _put(args: Sequence[Any]) -> None:
    written, indices, values = args[:3]
    known = all(index is None or index.dtype in (torch.int32, torch.int64) for index in indices)
    if known and values.dim():
        shape = torch.ops.aten.index.Tensor(written, indices).shape
        _alike(zip(reversed(shape), reversed(values.shape), strict=False))


_RULES: Final[Mapping[str, Callable[[Sequence[Any]], None]]] = MappingProxyType(
    {
        **dict.fromkeys(("aten::index_add", "aten::index_reduce", "aten::index_copy"), _index),
        **dict.fromkeys(("aten::scatter", "aten::scatter_add", "aten::scatter_reduce"), _scatter),
        "aten::index_put": _put,
        "aten::slice_scatter": _slice,
        "aten::select_scatter": _select,
    }
)
