"""Primitives without products, by name: those that compute each element, and those that only move elements.

A primitive that is neither here nor among the formulas or the control flow is of unknown cost, so a name that a later
JAX brings is never taken for nothing.
"""

from __future__ import annotations

from typing import Final

# ruff: noqa: SIM905 - words of a text read better than two hundred quoted ones
ELEMENTWISE: Final = frozenset(
    # one result for each element
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp clz complex conj cos cosh "
    "digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma "
    "log log1p logistic lt max min mul mulhi ne neg nextafter not or polygamma population_count pow real reciprocal "
    "regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh "
    "sqrt square sub tan tanh xor zeta "
    # reductions, running and ordered
    "argmax argmin approx_top_k cumlogsumexp cummax cummin cumprod cumsum reduce_and reduce_max reduce_min reduce_or reduce_prod "
    "reduce_sum reduce_window_max reduce_window_min reduce_window_sum reduce_xor select_and_gather_add select_and_scatter_add "
    "sort top_k scatter-add scatter-sub scatter-mul scatter-max scatter-min scatter_add scatter_sub scatter_mul scatter_max scatter_min "
    # sums over devices
    "psum psum_invariant unreduced_psum pmax pmin reduce_scatter unreduced_reduce_scatter "
    # random numbers
    "philox2x32 philox4x32 random_bits random_gamma rng_bit_generator rng_uniform threefry2x32 threefry4x32".split()
)
"""Primitive that computes each of its output elements, without a sum of products."""

FREE: Final = frozenset(
    # layout, lookup, conversion
    "bitcast_convert_type broadcast_in_dim broadcast_to concatenate convert_element_type copy copy_p device_put dimension_size "
    "dynamic_slice dynamic_update_slice empty empty2 expand_dims from_edtype gather iota iota_2x32_shape pad reduce_precision reshape "
    "reshard rev scatter sharding_constraint slice split squeeze stack stop_gradient tie tile to_edtype transpose unstack zeros_like "
    "layout_constraint optimization_barrier dim_as_value eq_to le_to lt_to with_memory_space_constraint "
    # keys of random numbers
    "random_clone random_fold_in random_seed random_split random_unwrap random_wrap "
    # devices
    "all_gather all_gather_invariant all_gather_reduced all_to_all axis_index pbroadcast ppermute preduced precv psend pvary "
    "ragged_all_to_all reduced_vary_cast vary_unreduced_cast reduced_vary_cast_p vary_unreduced_cast_p platform_index "
    # references and kernels
    "addupdate delay empty_ref free_ref freeze get masked_load masked_swap multiple_of new_ref num_programs program_id "
    "semaphore_read semaphore_signal semaphore_wait swap "
    # sparse layout
    "bcoo_extract bcoo_fromdense bcoo_sort_indices bcoo_sum_duplicates bcoo_todense bcoo_transpose bcsr_extract bcsr_fromdense "
    "bcsr_todense coo_fromdense coo_todense csr_fromdense csr_todense "
    # what checks and prints
    "after_all check create_token debug_callback debug_print inspect_sharding name shape_assertion".split()
)
"""Primitive that computes nothing."""

LAYOUT: Final = frozenset(
    "convert_element_type copy copy_p device_put expand_dims layout_constraint name optimization_barrier pvary reduce_precision "
    "reshape reshard rev sharding_constraint squeeze stop_gradient transpose".split()
)
"""Primitive whose result holds the elements of its operand, so that it still is the weight if that was one."""

CALLS: Final = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "composite": "jaxpr",
    "run_scoped": "jaxpr",
    "run_state": "jaxpr",
}
"""Primitive that runs one jaxpr once → the parameter that holds it."""
