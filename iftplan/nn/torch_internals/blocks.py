"""Where the part that this process has of a DTensor lies in the whole; torch answers that to its own checkpoints only."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from iftplan.base.errors import MeasureError


def block_of(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First index and length of the part in every dimension of a DTensor without partial sums.

    Raises:
        MeasureError: torch's answer does not fit the part.
    """
    spread: Any = tensor
    part = tuple(spread.to_local().shape)
    (chunk,) = spread.__create_chunk_list__()
    offsets, sizes = tuple(map(int, chunk.offsets)), tuple(map(int, chunk.sizes))
    if sizes != part and not (0 in sizes and 0 in part):
        raise MeasureError(
            f"this PyTorch says that a part of shape {part} has the sizes {sizes}, so sharded masks cannot be updated; keep masks whole."
        )
    return offsets, part
