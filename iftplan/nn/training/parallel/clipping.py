"""Clipping of gradients that lie in parts on meshes of several kinds, which torch's own clipping does not take together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from iftplan.nn.masks.shards import groups_of, is_sharded, local


@torch.no_grad()
def clip_(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Norm of all gradients together, which are scaled to at most `most`, in place; every process has to call it.

    Args:
        parameters: sharded or plain.
        most: largest norm.
    """
    squares: dict[tuple[int, ...], tuple[tuple[Any, ...], Tensor]] = {}
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient in gradients:
        groups = groups_of(gradient) if is_sharded(gradient) else ()
        own = local(gradient).float().square().sum()
        key = tuple(map(id, groups))
        squares[key] = (groups, own if key not in squares else squares[key][1] + own)
    for groups, total in squares.values():
        for group in groups:
            distributed.all_reduce(total, group=group)
    norm = torch.stack([total for _, total in squares.values()]).sum().sqrt()
    factor = (most / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_([local(gradient) for gradient in gradients], factor)
    return norm
