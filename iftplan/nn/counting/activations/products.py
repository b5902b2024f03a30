"""Multiply-accumulates of one product whose activation is zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MATRIX_PRODUCTS = {"aten::mm": 0, "aten::addmm": 1, "aten::bmm": 0, "aten::baddbmm": 1}
"""Operators that multiply matrices → place of the first."""
CONVOLUTION = "aten::convolution"


@dataclass(frozen=True, slots=True)
class WeightProduct:
    """WeightProduct of activations with a weight.

    Attributes:
        place: of the activations among the operator's arguments.
        x: the activations, as the operator takes them.
        w: the weight, as the operator takes it.
        arguments: of the operator.
        transposed: whether the weight is the left factor of a product of matrices.
    """

    place: int
    x: Tensor
    w: Tensor
    arguments: Sequence[Any]
    transposed: bool = False

    @property
    def is_matrix(self) -> bool:
        """Whether a row of activations for each token is multiplied with one matrix, x (M, K) · w (K, N)."""
        return self.x.dim() == self.w.dim() == 2 and not self.transposed

    def skipped_macs(self, *, nonzeros: bool) -> int:
        """MACs of the product whose activation is zero.

        Args:
            nonzeros: whether products with a zero weight are left out of both counts.
        """
        zero = self.x == 0
        if len(self.arguments) > 7:
            return _skipped_by_convolution(zero, self.w, self.arguments, nonzeros=nonzeros)
        return _skipped_by_matrix(zero, self.w, transposed=self.transposed, nonzeros=nonzeros)


def product_of(name: str, args: Sequence[Any], is_weight: Sequence[bool]) -> WeightProduct | None:
    """The product that a call computes; None if it is another operator, or none of its factors is a weight alone.

    Args:
        name: qualified name of the operator.
        args: of the call.
        is_weight: for each of them, whether it is a parameter or a view of one.
    """
    if name == CONVOLUTION:
        return WeightProduct(0, args[0], args[1], args) if _plain(args[0], args[1]) and is_weight[1] else None
    first = MATRIX_PRODUCTS.get(name)
    if first is None or not _plain(args[first], args[first + 1]):
        return None
    if is_weight[first + 1]:
        return WeightProduct(first, args[first], args[first + 1], args[: first + 2])
    if is_weight[first]:
        return WeightProduct(first + 1, args[first + 1], args[first], args[: first + 2], transposed=True)
    return None


def _plain(*tensors: Tensor) -> bool:
    return all(tensor.layout is torch.strided for tensor in tensors)


def _skipped_by_matrix(zero: Tensor, w: Tensor, *, transposed: bool, nonzeros: bool) -> int:
    """Zeros of each of the K inputs, times the weights that it meets: x (…, M, K) · w (…, K, N), or w · x."""
    zeros = zero.sum(-1 if transposed else -2, dtype=torch.int64)  # (…, K)
    across = -2 if transposed else -1
    met = (w != 0).sum(across, dtype=torch.int64) if nonzeros else torch.tensor(w.shape[across])
    return int((zeros * met.to(zeros.device)).sum())


def _skipped_by_convolution(zero: Tensor, w: Tensor, args: Sequence[Any], *, nonzeros: bool) -> int:
    """Every zero meets those weights that pass over it; what padding adds is no activation, and not skipped."""
    stride, padding, dilation, transposed, output_padding, groups = args[3:9]
    if transposed:  # each input position meets all weights of its channel
        zeros = zero.sum((0, *range(2, zero.dim())), dtype=torch.int64)
        met = (w != 0).flatten(1).sum(1) if nonzeros else torch.full_like(zeros, w[0].numel())
        return int((zeros * met).sum())
    met = (w != 0).double() if nonzeros else w.new_ones((groups, *w.shape[1:]), dtype=torch.float64)
    swept = torch.convolution(
        zero.double(), met, None, stride, padding, dilation, transposed, output_padding, groups
    )
    return round(float(swept.sum())) * (1 if nonzeros else w.shape[0] // groups)
