"""Operators that contract nothing: elementwise work, reductions, norms, lookups, layouts, factories.

PyTorch itself says which of its operators are pointwise, are views, or take no tensor. The others stand here by
name, without underscores at either end and without what marks a variant (`_copy`, `_backward`, `_foreach_`). An
operator that is neither here nor in the table of formulas is of unknown cost, so a name that a later PyTorch
brings is never taken for nothing.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

import torch

from iftplan.nn.torch_internals import script_schemas

_VARIANTS: Final = re.compile(
    r"^(?:foreach|special|no_grad|unsafe|nested|safe)_"
    r"|_(?:copy|backward|backward_data|backward_elemt|backward_reduce|forward|functional|jvp|impl|cachemask|helper|differentiable"
    r"|no_training|no_update|with_update|unsafe|generator)$"
)

# Families, by a part of the name.
_FAMILIES: Final = re.compile(
    r"upsample|interpolate$|_pool\d?d?(?:_with_indices)?$|max_unpool|(?:^|_)pad(?:_|\dd|$)|padded_|_loss(?:2d|_nd)?$|dropout$"
    r"|(?:batch|layer|group|instance|native|rms)_norm|embedding|grid_sampler|softmax|cross_entropy|quantize(?!d_)|scatter|gather"
    r"|^(?:rand|randint|randn|randperm|empty|new|zeros|ones|full)(?:_|$)|^index(?:_|$)|^unique|^histogram|^split|^sparse_\w*(?:tensor|dim|mask|sum|prod|resize)"
    r"|^test_|^is_|^sym_|^to_|^cast_|^fused_|^amp_|^philox_|^sobol_|^q_|^atleast_|^validate_(?:compressed_)?sparse_|^functional_|window$"
)

# ruff: noqa: SIM905 - words of a text read better than eight hundred quoted ones
_NAMES: Final = frozenset(
    # reductions, running and ordered
    "all max min amax amin aminmax any argmax argmin argsort bincount bucketize count_nonzero cummax cummaxmin cummin cumprod cumsum "
    "cumulative_trapezoid diff dist frobenius_norm gradient hash_tensor histc kthvalue linalg__powsum linalg_vector_norm "
    "logcumsumexp logsumexp mean median mode msort nanmean nanmedian nanquantile nansum norm norm_except_dim pairwise_distance "
    "powsum prod quantile renorm searchsorted segment_reduce sort std std_mean sum sum_to_size topk trace trapezoid trapz "
    "value_selecting_reduction var var_mean weight_norm weight_norm_interface "
    # products without a sum
    "addr cartesian_prod combinations cross ger kron linalg_cross linalg_vander outer vander "
    # elementwise
    "absolute add_relu where threshold hardsigmoid hardshrink hardtanh softshrink softplus leaky_relu elu mish gelu erf erfc erfinv exp2 expm1 i0 log1p logit digamma polygamma round sinc xlogy rrelu allclose alpha_dropout and arccos arccosh arcsin arcsinh arctan arctan2 arctanh complex contains divide "
    "expit fix floor_divide gammainc gammaincc gammaln glu greater greater_equal hardswish iand infinitely_differentiable_gelu "
    "ior irshift isclose isin isreal kl_div less less_equal log_sigmoid masked_scale multigammaln multiply ndtr negative not_equal "
    "or polar prelu prelu_kernel psi rrelu_with_noise standard_gamma standard_gamma_grad subtract "
    "thnn_fused_gru_cell thnn_fused_lstm_cell thnn_fused_lstm_cell_backward transform_bias_rescale_qkv resolve_conj resolve_neg "
    # values in and out of places
    "argwhere as_strided as_strided_scatter block_diag broadcast_tensors cat channel_shuffle chunk_cat col2im column_stack concat concatenate copy "
    "copy_from copy_from_and_resize copy_sparse_to_sparse diag diag_embed diagflat diagonal_scatter dstack fill fill_diagonal "
    "fill_mem_eff_dropout_mask flatten_dense_tensors flip fliplr flipud getitem hstack im2col item items jagged_to_padded_dense "
    "lift lift_fresh linalg_diagonal masked_scatter masked_select meshgrid mkldnn_reshape mkldnn_transpose native_channel_shuffle nonzero "
    "nonzero_numpy nonzero_static one_hot pack_sequence pixel_shuffle pixel_unshuffle put repeat repeat_interleave reshape_from_tensor "
    "roll rot90 row_stack select set slice slice_inverse stack take take_along_dim tile tril tril_indices triu triu_indices "
    "unflatten_dense_tensors chunk masked_index masked_index_put_accumulate vstack view lazy_clone lu_unpack from_mask tensor_from_mask "
    "from_padded tensor_from_tensor_list tensor_from_mask_left_aligned from_padded_and_nested_example get_values view_from_jagged "
    "view_from_buffer chalf type_as "
    # new tensors and random ones
    "Bool Complex ComplexImplicit Float FloatImplicit Int IntImplicit ScalarImplicit arange as_tensor bernoulli binomial cauchy "
    "dirichlet_grad dim_arange efficientzerotensor exponential eye fft_fftfreq fft_rfftfreq fft_fftshift fft_ifftshift fill "
    "from_file geometric linspace log_normal logspace multinomial normal poisson random range sample_dirichlet scalar_tensor "
    "shape_as_tensor spdiags tensor uniform zero "
    # questions, sizes, storage
    "Delete add_batch_dim assert_async assert_tensor_metadata backward clear coalesced count cudnn_init_dropout_state cudnn_is_acceptable "
    "data debug_has_internal_overlap dense_dim dict dim dimI dimV element_size foobar get get_device get_gradients get_jagged_dummy "
    "get_lengths get_max_seqlen get_min_seqlen get_offsets get_ragged_idx compute_contiguous_strides_offsets has_compatible_shallow_copy_type "
    "has_same_storage_numel keys len linalg_check_errors list_to_tensor local_scalar_dense make_dep_token nnz numel output_nr "
    "pop popitem propagate_xla_data qscheme record_stream remove remove_batch_dim requires_grad resize resize_as resize_as_sparse "
    "resize_output result_type retain_grad retains_grad set_data shallow_copy_data set_item setdefault size sparse_dim storage_offset stride "
    "tensor_size tensor_storage_offsets tensor_strides tensor_to_list update use_cudnn_ctc_loss use_miopen_ctc_loss version "
    "cufft_clear_plan_cache cufft_get_plan_cache_max_size cufft_get_plan_cache_size cufft_set_plan_cache_max_size "
    # weights packed or thinned
    "choose_qparams_optimized choose_qparams_per_tensor convert_indices_from_coo_to_csr convert_indices_from_csr_to_coo "
    "convert_weight_to_int4pack convert_weight_to_int4pack_for_cpu cslt_compress cudnn_rnn_flatten_weight dequantize "
    "dyn_quant_pack_4bit_weight fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix int_repr "
    "make_per_channel_quantized_tensor make_per_tensor_quantized_tensor mkldnn_reorder_conv2d_weight mkldnn_reorder_conv3d_weight "
    "quantized_batch_norm rowwise_prune saturate_weight_to_fp16 sparse_semi_structured_apply sparse_semi_structured_apply_dense "
    "sparse_semi_structured_tile use_cudnn_rnn_flatten_weight wrapped_linear_prepack".split()
)

# Namespaces of PyTorch whose operators compute nothing by themselves: Python values, messages, notes.
_SILENT: Final = frozenset({"prim", "profiler", "c10d", "_c10d_functional", "onnx"})
_PRIMS_THAT_CONTRACT: Final = frozenset({"svd", "fft_r2c", "fft_c2c", "fft_c2r"})


@cache
def is_free(schema_name: str) -> bool:
    """Whether an operator of this qualified name contracts nothing, for certain."""
    namespace, _, name = schema_name.partition("::")
    if namespace in _SILENT:
        return True
    if namespace == "prims":
        return name not in _PRIMS_THAT_CONTRACT
    if namespace != "aten":
        return False
    base = base_name(name)
    return base in _NAMES or bool(_FAMILIES.search(base)) or any(map(_by_its_kind, {name, base, f"_{base}"}))


def base_name(name: str) -> str:
    """The name without what marks a variant: `_foreach_norm` and `norm_` are both `norm`."""
    while True:
        bare = _VARIANTS.sub("", name.strip("_")).strip("_")
        if bare == name:
            return name
        name = bare


def _by_its_kind(name: str) -> bool:
    """Pointwise, a view, or without tensors, as PyTorch's own registry has it."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:  # an operator of TorchScript alone, on Python values; or none at all
        schemas = script_schemas(f"aten::{name}")
        return bool(schemas) and not any(map(_tensors, schemas))
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    return any(torch.Tag.pointwise in o.tags or o.is_view or not _tensors(o._schema) for o in overloads)


def _tensors(schema: Any) -> bool:
    return any("Tensor" in str(value.type) for value in (*schema.arguments, *schema.returns))
