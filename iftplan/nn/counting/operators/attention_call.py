"""What a call of attention says of its sizes and of its mask."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iftplan.masks.attention.product import AttentionCall


def attention_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> AttentionCall | None:
    """Sizes of `scaled_dot_product_attention`, with what its mask keeps; None where tensors have fewer than two dimensions.

    Args:
        query: `(…, L, E)`.
        key: `(…, S, E)`.
        value: `(…, S, E_v)`.
        attn_mask: what it keeps is a question of its values, which shapes do not answer.
        dropout_p: of no influence.
        is_causal: whether a query sees only the keys up to its own position.
    """
    if min(query.dim(), key.dim(), value.dim()) < 2:
        return None
    mask = "causal" if is_causal else "full"
    return AttentionCall(
        int(query.shape[-2]),
        int(key.shape[-2]),
        int(query.shape[-1]),
        int(value.shape[-1]),
        mask if attn_mask is None else None,
    )
