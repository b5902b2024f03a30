"""The table of contraction operators: how each reads its arguments, whatever engine saw the call.

An engine turns a call into plain values (a tensor becomes its shape, a list of tensors a list of shapes)
and looks the operator up here; so all engines that use formulas of ours use the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any, Final

from iftplan.nn.counting.operators import formulas as f
from iftplan.nn.counting.operators.einsum import einsum_macs
from iftplan.nn.counting.operators.free import is_free

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

    def cost(self, arguments: Arguments, output: f.Shape) -> int | None:
        """MACs of one call; None where this call does what no formula describes."""
        try:
            return self.macs(arguments, output)
        except f.UnknownCost:
            return None


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


def _rows(i: Arguments, o: f.Shape) -> int:
    """Every output element sums over the last dimension of the first operand, however the other one is packed."""
    features: int = i[0][-1]
    return prod(o) * features


def _matrix_norm(i: Arguments, o: f.Shape) -> int:
    order, dims = i[1] if len(i) > 1 else None, i[2] if len(i) > 2 else None
    of_matrix = len(dims) == 2 if isinstance(dims, list | tuple) else dims is None and len(i[0]) == 2
    if order == "nuc" or (of_matrix and order in (2, -2)):
        raise f.UnknownCost  # singular values
    return 0


def _attention_of_kernels(i: Arguments, o: f.Shape) -> int:
    if any(isinstance(v, list | tuple) and len(v) == 1 for v in i[3:7]):
        raise f.UnknownCost  # cumulative lengths: which queries meet which keys is data
    return f.packed_attention(*i[:3])


def _named(name: str, macs: Callable[[Arguments, f.Shape], int], *operands: int) -> Operator:
    return Operator(name, macs, operands)


_PRODUCTS = MappingProxyType(
    {
        f"aten::{name}": 0
        for name in (
            *("mm", "bmm", "mv", "dot", "vdot", "matmul", "linalg_matmul"),
            *("_int_mm", "_scaled_mm", "_scaled_mm_v2", "_sparse_mm"),
        )
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
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)

# Kernels by the name of the library that they come from.
_CONVOLUTIONS = (
    *("_convolution_mode", "conv1d", "conv2d", "conv3d", "mkldnn_convolution", "cudnn_convolution"),
    *(
        "cudnn_convolution_relu",
        "cudnn_convolution_add_relu",
        "miopen_convolution",
        "miopen_convolution_relu",
    ),
    *("miopen_convolution_add_relu", "miopen_depthwise_convolution", "_mps_convolution", "thnn_conv2d"),
    *(
        "_slow_conv2d_forward",
        "slow_conv3d",
        "slow_conv3d_forward",
        "slow_conv_dilated2d",
        "slow_conv_dilated3d",
    ),
    *("_conv_depthwise2d", "conv_depthwise3d", "_nnpack_spatial_convolution"),
)
_TRANSPOSED_CONVOLUTIONS = (
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cudnn_convolution_transpose"),
    *("miopen_convolution_transpose", "_mps_convolution_transpose", "slow_conv_transpose2d"),
    "slow_conv_transpose3d",
)
_QUANTIZED_LINEARS = (
    *("_weight_int8pack_mm", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu", "_mixed_dtypes_linear"),
    *("_weight_int4pack_mm_with_scales_and_zeros", "_dyn_quant_matmul_4bit", "mkldnn_linear"),
    *("fbgemm_linear_fp16_weight", "fbgemm_linear_fp16_weight_fp32_activation"),
    *("fbgemm_linear_int8_weight", "fbgemm_linear_int8_weight_fp32_activation"),
)

# Whole operators that come apart into products when they run, but that a tracer records by their names.
_COMPOSED: Final[Mapping[str, Operator]] = MappingProxyType(
    {
        "inner": _named("inner", lambda i, o: f.inner(i[0], i[1]), 1, 0),
        "linalg_vecdot": _named("vecdot", lambda i, o: f.vecdot(i[0], i[1]), 1, 0),
        "cosine_similarity": _named("cosine_similarity", lambda i, o: f.vecdot(i[0], i[1]), 1, 0),
        "linalg_multi_dot": _named("multi_dot", lambda i, o: f.multi_dot(i[0])),
        "chain_matmul": _named("multi_dot", lambda i, o: f.multi_dot(i[0])),
        "linalg_matrix_power": _named("matrix_power", lambda i, o: f.matrix_power(i[0], i[1])),
        "matrix_power": _named("matrix_power", lambda i, o: f.matrix_power(i[0], i[1])),
        "cov": _named("cov", lambda i, o: f.covariance(i[0])),
        "corrcoef": _named("cov", lambda i, o: f.covariance(i[0])),
        "bilinear": _named("bilinear", lambda i, o: f.bilinear(*i[:3]), 2),
        "linalg_norm": _named("norm", _matrix_norm),
        "linalg_matrix_norm": _named("norm", _matrix_norm),
    }
    | {
        name: _named(name, lambda i, o: f.cell(i[0], i[2], i[3]), 2, 3)
        for name in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
    }
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
        **{
            name: Operator("grouped_mm", lambda i, o: f.grouped_mm(i[0], i[1]))
            for name in (
                *("aten::_grouped_mm", "aten::_scaled_grouped_mm", "aten::_scaled_grouped_mm_v2"),
                "transformers::grouped_mm_fallback",
            )
        },
        "iftplan::block_attention": _named("attention", lambda i, o: f.block_attention(*i[:5])),
        "aten::_pdist_forward": _named("pdist", lambda i, o: f.own_distances(i[0]), 0),
        "aten::pdist": _named("pdist", lambda i, o: f.own_distances(i[0]), 0),
        "aten::_trilinear": _named("bilinear", lambda i, o: sum(f.trilinear(i[:3], i[3:6], i[6])), 1),
        "aten::conv_tbc": Operator("conv_tbc", lambda i, o: prod(o[:2]) * prod(i[1])),
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
    | {f"aten::{name}": Operator("convolution", _forward_convolution) for name in _CONVOLUTIONS}
    | {"torchvision::deform_conv2d": Operator("deform_conv2d", _forward_convolution)}
    | {f"aten::{name}": Operator("convolution", _transposed_convolution) for name in _TRANSPOSED_CONVOLUTIONS}
    # the weight alone: it has another type than what it is multiplied with
    | {f"aten::{name}": Operator("linear", _rows, (1,)) for name in _QUANTIZED_LINEARS}
    | {
        f"aten::{name}": Operator("cdist", lambda i, o: f.distances(i[0], i[1]))
        for name in ("cdist", "_cdist_forward", "_euclidean_dist")
    }
    | {  # the base grid, a homogeneous vector for each pixel, times the matrices
        f"aten::{name}": _named("affine_grid", lambda i, o: prod(o) * i[0][-1], 0)
        for name in ("affine_grid_generator", "cudnn_affine_grid_generator")
    }
    | {f"aten::{name}": operator for name, operator in _COMPOSED.items()}
    | {
        f"aten::{name}": Operator("attention", _attention_of_kernels, ())
        for name in ("_flash_attention_forward", "_efficient_attention_forward")
    }
    | {f"aten::{name}": Operator("attention", _attention, ()) for name in _ATTENTIONS}
    | {f"aten::{name}": Operator(name, _recurrent, ()) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
)

# Operators of torchvision that choose, pool or interpolate.
_FREE: Final = frozenset(
    f"torchvision::{name}" for name in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
)


def may_contract(schema_name: str) -> bool:
    """Whether an operator without a formula may hide a contraction: it is not known to be free of them."""
    return schema_name not in OPERATORS and schema_name not in _FREE and not is_free(schema_name)
