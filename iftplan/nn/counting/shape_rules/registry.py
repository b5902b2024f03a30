"""Shape rules: what frequent functions return and cost, from their arguments' shapes alone.

A rule takes the ledger and the function's own arguments. It returns an empty meta tensor of the right shape,
dtype and strides and writes its cost down, or returns NotImplemented for anything out of the ordinary; then
the real function runs, above the dispatch net.
"""

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
from iftplan.nn.counting.shape_rules.elementwise import ELEMENTWISE
from iftplan.nn.counting.shape_rules.layout import LAYOUT
from iftplan.nn.counting.shape_rules.recurrent import RECURRENT
from iftplan.nn.meta.tensors import empty, pairs

Rule = Callable[..., Any]


def _linear(ledger: Ledger, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    x, w = input.shape, weight.shape
    if len(w) != 2 or not x or x[-1] != w[1] or input.dtype is not weight.dtype or not input.is_meta:
        return NotImplemented
    if weight.layout is not torch.strided or input.layout is not torch.strided:
        return NotImplemented
    if bias is not None and (bias.shape != w[:1] or bias.dtype is not weight.dtype):
        return NotImplemented
    ledger.contraction("linear", formulas.linear(x, w), weight, input)
    return empty((*x[:-1], w[0]), input.dtype)


def _convolution(
    ledger: Ledger,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    x, w = input.shape, weight.shape
    dims = len(w) - 2
    if len(x) != dims + 2 or x[1] != w[1] * groups or input.dtype is not weight.dtype or not input.is_meta:
        return NotImplemented
    stride, dilation = pairs(stride, dims), pairs(dilation, dims)
    reach = [d * (k - 1) for d, k in zip(dilation, w[2:], strict=True)]
    if padding == "same" and any(s != 1 for s in stride):
        return NotImplemented
    if padding == "same":
        padded = [size + r for size, r in zip(x[2:], reach, strict=True)]
    else:
        around = (0,) * dims if padding == "valid" else pairs(padding, dims)
        padded = [size + 2 * p for size, p in zip(x[2:], around, strict=True)]
    if w[0] % groups or any(size <= r for size, r in zip(padded, reach, strict=True)):
        return NotImplemented
    swept = [(size - r - 1) // s + 1 for size, r, s in zip(padded, reach, stride, strict=True)]
    output = (x[0], w[0], *swept)
    ledger.contraction(f"conv{dims}d", formulas.convolution(x, w, output), weight, input)
    return empty(output, input.dtype)


def _matmul(ledger: Ledger, input: Tensor, other: Tensor) -> Any:
    if not isinstance(input, Tensor) or not isinstance(other, Tensor) or not input.is_meta:
        return NotImplemented
    a, b = input.shape, other.shape
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2] or input.dtype is not other.dtype:
        return NotImplemented
    if input.layout is not torch.strided or other.layout is not torch.strided:
        return NotImplemented
    if a[:-2] == b[:-2]:
        leading = tuple(a[:-2])
    else:
        try:
            leading = formulas.broadcast(a[:-2], b[:-2])
        except ValueError:
            return NotImplemented
    output = (*leading, a[-2], b[-1])
    ledger.contraction("matmul", prod(output) * a[-1], other, input)
    return empty(output, input.dtype)


def _addmm(ledger: Ledger, input: Tensor, mat1: Tensor, mat2: Tensor, **scales: Any) -> Any:
    a, b = mat1.shape, mat2.shape
    if len(a) != 2 or len(b) != 2 or a[1] != b[0] or input.dtype is not mat1.dtype is mat2.dtype:
        return NotImplemented
    if mat1.layout is not torch.strided or mat2.layout is not torch.strided:
        return NotImplemented
    output = (a[0], b[1])
    if scales.keys() - {"alpha", "beta"} or input.shape not in (b[1:], output) or not mat1.is_meta:
        return NotImplemented
    ledger.contraction("addmm", formulas.matmul(a, b), mat2, mat1)
    return empty(output, mat1.dtype)


def _attention(
    ledger: Ledger,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    q, k, v = query.shape, key.shape, value.shape
    if len(q) != 4 or len(k) != 4 or q[0] != k[0] or k[:-1] != v[:-1] or q[-1] != k[-1]:
        return NotImplemented
    if not query.is_meta or not query.dtype is key.dtype is value.dtype:
        return NotImplemented
    if k[1] != q[1] and (not enable_gqa or q[1] % k[1]):
        return NotImplemented
    ledger.contraction("attention", formulas.attention(q, k, v))  # of activations, learnt ones too
    if dropout_p or v[-1] != q[-1]:
        return empty((*q[:-1], v[-1]), query.dtype)
    # Fused kernels hand out (B, L, H, E) seen as (B, H, L, E); models view it as (B, L, H·E) next.
    return empty((q[0], q[2], q[1], q[3]), query.dtype).transpose(1, 2)


def _embedding(ledger: Ledger, input: Tensor, weight: Tensor, *options: Any, **named: Any) -> Any:
    if not input.is_meta or len(weight.shape) != 2 or len(options) > 1:
        return NotImplemented
    if input.dtype not in (torch.int64, torch.int32):  # torch's meta kernel takes any
        raise TypeError(
            f"Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got {input.dtype} instead"
        )
    ledger.elementwise["embedding"] += input.numel() * weight.shape[1]
    return empty((*input.shape, weight.shape[1]), weight.dtype)


CALLERS: Final = MappingProxyType(
    {
        F.linear: "linear",
        torch.matmul: "matmul",
        Tensor.matmul: "matmul",
        Tensor.__matmul__: "matmul",
        Tensor.__rmatmul__: "matmul",
        torch.bmm: "bmm",
        Tensor.bmm: "bmm",
        torch.mm: "mm",
        Tensor.mm: "mm",
        torch.einsum: "einsum",
        torch.tensordot: "tensordot",
        torch.conv1d: "conv1d",
        torch.conv2d: "conv2d",
        torch.conv3d: "conv3d",
        torch.conv_transpose1d: "conv_transpose1d",
        torch.conv_transpose2d: "conv_transpose2d",
        torch.conv_transpose3d: "conv_transpose3d",
        F.scaled_dot_product_attention: "attention",
        torch.lstm: "lstm",
        torch.gru: "gru",
        torch.rnn_tanh: "rnn_tanh",
        torch.rnn_relu: "rnn_relu",
        torch.lstm_cell: "lstm_cell",
        torch.gru_cell: "gru_cell",
        torch.rnn_tanh_cell: "rnn_tanh_cell",
        torch.rnn_relu_cell: "rnn_relu_cell",
    }
)

RULES: Final[MappingProxyType[Any, Rule]] = MappingProxyType(
    {
        F.linear: _linear,
        torch.matmul: _matmul,
        Tensor.matmul: _matmul,
        Tensor.__matmul__: _matmul,
        torch.addmm: _addmm,
        torch.conv1d: _convolution,
        torch.conv2d: _convolution,
        torch.conv3d: _convolution,
        F.scaled_dot_product_attention: _attention,
        F.embedding: _embedding,
        **ELEMENTWISE,
        **LAYOUT,
        **RECURRENT,
    }
)

_T = Tensor
SHAPE_ONLY: Final = frozenset(
    {
        *(_T.view, _T.reshape, _T.transpose, _T.permute, _T.expand, _T.unsqueeze, _T.squeeze, _T.flatten),
        *(_T.chunk, _T.split, _T.contiguous, _T.t, _T.size, _T.dim, _T.numel, _T.stride, _T.__getitem__),
        *(_T.is_floating_point, _T.is_contiguous, _T.unbind, _T.select, _T.narrow, _T.view_as, _T.expand_as),
        *(_T.to, _T.float, _T.type_as, _T.detach, _T.repeat, _T.new_empty, _T.new_zeros, _T.new_ones),
        *(_T.roll, _T.clone, _T.reshape_as, _T.unfold, _T.movedim, _T.unflatten, _T.swapaxes, _T.long),
        *(torch.transpose, torch.permute, torch.reshape, torch.flatten, torch.unsqueeze, torch.squeeze),
        *(torch.stack, torch.chunk, torch.split, torch.empty, torch.zeros, torch.ones),
        *(torch.full, torch.zeros_like, torch.ones_like, torch.empty_like, torch.unbind),
    }
)
