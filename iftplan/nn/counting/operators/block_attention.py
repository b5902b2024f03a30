"""Attention under a block mask: an operator of this project's, so that every engine can count what the mask keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.masks import AttentionPattern
from iftplan.masks.attention.block_map import BlockMap
from iftplan.nn.meta.copies import BLOCKS
from iftplan.nn.torch_internals import pause_tracing, without_modes, without_torch_function

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


@torch.library.custom_op("iftplan::block_attention", mutates_args=())
def block_attention(query: Tensor, key: Tensor, value: Tensor, scores: int, maps: int) -> Tensor:
    """A tensor of the shape of the attention's output; nothing is computed.

    Args:
        query: `(B, H, L, E)`.
        key: `(B, H_kv, S, E)`.
        value: `(B, H_kv, S, E_v)`.
        scores: how many pairs of a query and a key the mask keeps, over all its batches and heads.
        maps: how many batches times heads that are.
    """
    return query.new_zeros((*query.shape[:-1], value.shape[-1]))


@block_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scores: int, maps: int) -> Tensor:
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def kept_scores(block_mask: tuple[Any, ...], query: Tensor, key: Tensor) -> tuple[int, int] | None:
    """Number of scores in the blocks that a mask keeps, and of the maps (batches times heads) it has.

    Blocks without values are made again on the CPU by the mask's function; None if it masks nothing, reads tensors without
    data, or was made of blocks that have no values.

    Args:
        block_mask: the tuple of a `BlockMask`: lengths, blocks in four pairs of tensors, block sizes, the mask's function.
        query: `(B, H, L, E)`.
        key: `(B, H_kv, S, E)`.
    """
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask

    first = next((i for i, part in enumerate(block_mask) if isinstance(part, Tensor)), None)
    rows, columns = map(int, block_mask[-3:-1])
    queries, keys = int(query.shape[-2]), int(key.shape[-2])
    if first is None or (rows >= 1 << 30 and columns >= 1 << 30):
        return None
    blocks = [getattr(part, BLOCKS, part) for part in block_mask[first : first + 4]]
    batches, heads = map(int, blocks[0].shape[:2])
    with pause_tracing(), without_modes(), without_torch_function(), torch.device("cpu"):
        try:
            if type(blocks[0]) is Tensor and not blocks[0].is_meta:
                numbers: Any = [part if part is None else part.cpu() for part in blocks]
                mask = BlockMask.from_kv_blocks(
                    numbers[0], numbers[1], numbers[2], numbers[3], BLOCK_SIZE=(rows, columns)
                )
            elif _keeps_all(block_mask[-1]):
                return None
            else:
                mask = create_block_mask(
                    block_mask[-1], batches, heads, queries, keys, device="cpu", BLOCK_SIZE=(rows, columns)
                )
            kept = mask.to_dense()
            if kept.is_meta:
                return None
        except Exception:
            return None
        heights = _sizes(queries, rows, kept.shape[-2])
        widths = _sizes(keys, columns, kept.shape[-1])
        scores = int((kept.to(torch.int64) * heights[:, None] * widths).sum())
    return scores, batches * heads


def masks_nothing(block_mask: tuple[Any, ...]) -> bool:
    """Whether attention under a block mask is attention without one.

    Args:
        block_mask: the tuple of a `BlockMask`.
    """
    whole = all(int(size) >= 1 << 30 for size in block_mask[-3:-1])
    return block_mask[:2] == (1, 1) or (whole and _keeps_all(block_mask[-1]))


def _keeps_all(mask_mod: Any) -> bool:
    return getattr(mask_mod, "__name__", "") in ("noop_mask", "_no_mask")


@check_arguments
def block_pattern(block_mask: BlockMask) -> AttentionPattern:
    """Attention pattern of the blocks that a block mask of FlexAttention keeps, each of them whole.

    Raises:
        InputError: it is no block mask, its blocks are not square, or its batches or heads keep different blocks.

    Example:
        >>> from torch.nn.attention.flex_attention import create_block_mask
        >>> causal = create_block_mask(lambda b, h, q, k: q >= k, 1, 1, 4, 4, device="cpu", BLOCK_SIZE=2)
        >>> str(block_pattern(causal))
        'blocks:2:10/11'
    """
    from torch.nn.attention.flex_attention import BlockMask

    if not isinstance(block_mask, BlockMask):
        raise InputError(
            f"`block_mask` is a {type(block_mask).__name__}, and patterns are read from a BlockMask. Make one with torch.nn.attention.flex_attention.create_block_mask."
        )
    high, wide = block_mask.BLOCK_SIZE
    maps = block_mask.to_dense().flatten(0, -3).bool().tolist()
    if high != wide:
        raise InputError(
            f"a map of blocks has square ones, and those of this mask are {high}×{wide}. Give it one size."
        )
    if any(other != maps[0] for other in maps):
        raise InputError(
            f"the {len(maps)} batches and heads of this mask keep different blocks, and a pattern is the same for all. Take the "
            "pattern of each."
        )
    return AttentionPattern(
        blocks=BlockMap(int(high), tuple("".join("01"[kept] for kept in row) for row in maps[0]))
    )


def _sizes(length: int, block: int, blocks: int) -> Tensor:
    return torch.tensor([max(0, min(block, length - k * block)) for k in range(blocks)])
