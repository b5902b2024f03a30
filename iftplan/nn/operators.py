"""The table of contraction operators: how each reads its arguments, whatever engine saw the call.

An engine turns a call into plain values (a tensor becomes its shape, a list of tensors a list of shapes)
and looks the operator up here; so all engines that use formulas of ours use the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any, Final

from iftplan.nn import formulas as f
from iftplan.nn.einsum import einsum_macs

Arguments = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """A contraction operator: what an entry of the table below, or a user's own formula, says.

    Attributes:
        name: the plain name that count tables show.
        macs: (arguments with shapes for tensors, shape of the first output) → MACs.
        operands: positions of the arguments that may be weights, likeliest first.
    """

    name: str
    macs: Callable[[Arguments, f.Shape], int]
    operands: tuple[int, ...] = (1, 0)


def _product(first: int, i: Arguments, o: f.Shape) -> int:
    return f.matmul(i[first], i[first + 1])


def _convolution(i: Arguments, o: f.Shape) -> int:
    return f.convolution(i[0], i[1], o, transposed=i[6] is True)


def _forward_convolution(i: Arguments, o: f.Shape) -> int:
    return f.convolution(i[0], i[1], o)


def _transposed_convolution(i: Arguments, o: f.Shape) -> int:
    return f.convolution(i[0], i[1], o, transposed=True)


def _attention(i: Arguments, o: f.Shape) -> int:
    return f.attention(i[0], i[1], i[2])


def _einsum(i: Arguments, o: f.Shape) -> int:
    return einsum_macs(i[0], i[1], (i[2] or ()) if len(i) > 2 else ())


def _recurrent(i: Arguments, o: f.Shape) -> int:
    # (input, hx, weights, has_biases, …) or, packed, (data, batch_sizes, hx, weights, …): the list of
    # weights is the last list among them, and a packed one has its positions in one dimension.
    weights = next(v for v in (i[3], i[2]) if isinstance(v, list | tuple) and len(v) and _is_shapes(v))
    return f.recurrent(prod(i[0][:-1]), weights)


def _is_shapes(values: Sequence[Any]) -> bool:
    return all(isinstance(v, list | tuple) for v in values) and any(len(v) == 2 for v in values)


_PRODUCTS = MappingProxyType(
    {
        f"aten::{name}": 0
        for name in ("mm", "bmm", "mv", "dot", "vdot", "matmul", "_int_mm", "_scaled_mm", "_sparse_mm")
    }
    | {
        f"aten::{name}": 1
        for name in ("addmm", "addmv", "baddbmm", "addbmm", "_addmm_activation", "_sparse_addmm")
    }
    | {f"aten::{name}_": 1 for name in ("addmm", "addmv", "baddbmm", "addbmm")}  # in place
)
_ATTENTIONS = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)

Operators = Mapping[str, Operator]

OPERATORS: Final[Operators] = MappingProxyType(
    {
        name: Operator(name.removeprefix("aten::").rstrip("_"), partial(_product, first), (first + 1, first))
        for name, first in _PRODUCTS.items()
    }
    | {
        "aten::linear": Operator("linear", lambda i, o: f.linear(i[0], i[1])),
        "aten::einsum": Operator("einsum", _einsum, (1,)),
        "aten::tensordot": Operator("tensordot", lambda i, o: f.tensordot(*i[:4])),
        "aten::_grouped_mm": Operator("grouped_mm", lambda i, o: f.grouped_mm(i[0], i[1])),
        "transformers::grouped_mm_fallback": Operator("grouped_mm", lambda i, o: f.grouped_mm(i[0], i[1])),
        "aten::_native_multi_head_attention": Operator(
            "multi_head_attention", lambda i, o: f.multi_head_attention(i[0], i[1], i[3]), (5, 7)
        ),
        "aten::_transformer_encoder_layer_fwd": Operator(
            "transformer_encoder_layer", lambda i, o: f.encoder_layer(i[0], i[1], i[14][0]), ()
        ),
    }
    | {
        name: Operator("convolution", _convolution)
        for name in ("aten::convolution", "aten::_convolution", "aten::convolution_overrideable")
    }
    | {
        f"aten::{name}": Operator("convolution", _forward_convolution)
        for name in ("_convolution_mode", "conv1d", "conv2d", "conv3d", "mkldnn_convolution")
    }
    | {"torchvision::deform_conv2d": Operator("deform_conv2d", _forward_convolution)}
    | {
        f"aten::{name}": Operator("convolution", _transposed_convolution)
        for name in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
    }
    | {f"aten::{name}": Operator("attention", _attention, (1, 2, 0)) for name in _ATTENTIONS}
    | {f"aten::{name}": Operator(name, _recurrent, ()) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
)

_CONTRACTION_LIKE: Final = re.compile(
    r"conv|matmul|linear|attention|einsum|lstm|gru|rnn|cdist|transformer|fft|linalg|cholesky|inverse|solve"
    r"|(?:^|_)(?:[a-z]*mm|[a-z]*mv|v?dot|addr|ger|kron|svd|eigh?|qr|lu|scan)(?:_|$)"
)
_NOT_CONTRACTIONS: Final = re.compile(r"^_?upsample|interpolate|_pointwise|^_thnn_fused|linear_index")
# torchvision's operators that choose, pool or interpolate; its deformable convolution is above.
_FREE: Final = frozenset(
    f"torchvision::{name}" for name in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
)
_PLAIN_NAMESPACES: Final = frozenset(
    {"aten", "prim", "prims", "c10d", "_c10d_functional", "profiler", "onnx"}
)


def may_contract(schema_name: str) -> bool:
    """Whether an operator without a formula may hide a contraction: by its name, or as a custom operator."""
    namespace, _, name = schema_name.partition("::")
    if schema_name in OPERATORS or schema_name in _FREE or _NOT_CONTRACTIONS.search(name):
        return False
    return namespace not in _PLAIN_NAMESPACES or bool(_CONTRACTION_LIKE.search(name))
