"""Sparse tensors without data: how many values they store, and what the meta device has no kernels for.

A product costs each stored value once for every column of the other operand. torch's meta kernels know shapes
only and some of them forget the values; whatever cannot be followed is refused by name, never counted as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from iftplan.base.errors import MeasureError
from iftplan.nn.meta.tensors import SparseShape, empty

PRODUCTS: Final = MappingProxyType(
    {
        "aten::mm": 0,
        "aten::mv": 0,
        "aten::_sparse_mm": 0,
        "aten::addmm": 1,
        "aten::addmv": 1,
        "aten::_sparse_addmm": 1,
    }
)
"""Products that take a sparse operand → the position of the first operand."""


def stored_values(tensor: Tensor) -> int:
    """Values that a sparse tensor stores; blocks count with all their elements."""
    values = tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()
    return values.numel()


def sparse_shape(tensor: Tensor) -> SparseShape:
    """The shape of a sparse tensor with the number of values that it stores.

    Raises:
        MeasureError: torch forgot them, as it does when a sparse tensor moves to the meta device.
    """
    values = stored_values(tensor)
    if not values:
        raise MeasureError(
            f"a sparse tensor of shape {tuple(tensor.shape)} has no values, because it was made on the meta "
            "device or moved there; count the model on the device of its data, with `nonzeros=True`."
        )
    return SparseShape(tensor.shape, values)


def sparse_on_meta(tensor: Tensor) -> Tensor:
    """A double without data that stores as many values."""
    if tensor.layout is torch.sparse_coo:
        return _coo(tensor._indices().to("meta"), tensor._values().to("meta"), tensor.shape)
    by_rows = tensor.layout in (torch.sparse_csr, torch.sparse_bsr)
    compressed = tensor.crow_indices() if by_rows else tensor.ccol_indices()
    plain = tensor.col_indices() if by_rows else tensor.row_indices()
    return torch.sparse_compressed_tensor(
        compressed.to("meta"),
        plain.to("meta"),
        tensor.values().to("meta"),
        tensor.shape,
        layout=tensor.layout,
    )


def sparse_product(name: str, args: Sequence[Any]) -> Tensor | None:
    """The dense result of one of `PRODUCTS` on the meta device; None where no operand is sparse, or all have values."""
    a, b = args[PRODUCTS[name] : PRODUCTS[name] + 2]
    if (a.layout is torch.strided and b.layout is torch.strided) or not (a.is_meta or b.is_meta):
        return None
    return empty((*a.shape[:-1], *b.shape[1:]), a.dtype)


def correct_result(name: str, args: Sequence[Any], result: Tensor) -> Tensor:
    """A sparse result of a meta kernel, with its values put right.

    Args:
        name: qualified name of the operator, such as "aten::t".
        args: the operator's positional arguments, the sparse tensor first.
        result: what the meta kernel returned.

    Raises:
        MeasureError: how many values it stores cannot be known.
    """
    given = args[0] if args and isinstance(args[0], Tensor) else None
    if given is not None and given.layout is not torch.strided:
        if name in ("aten::t", "aten::transpose") and given.layout is torch.sparse_coo and given.dim() == 2:
            return _coo(given._indices().flip(0), given._values(), result.shape)
        if stored_values(given) == stored_values(result):
            return result
    raise MeasureError(
        f"{name} makes a sparse tensor, and without data iftplan cannot know how many values it stores. Make "
        "it once, in the model's constructor, and keep it as a buffer."
    )


def _coo(indices: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, tuple(shape), device="meta")
