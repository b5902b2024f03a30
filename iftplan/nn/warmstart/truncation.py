"""Matrices as products of lower rank, by their largest singular values."""

from __future__ import annotations

import torch
from torch import Tensor


def truncated(blocks: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(…, m, rank) and (…, rank, n) whose product is the best of that rank; what is beyond full rank is zero."""
    left, values, right = torch.linalg.svd(blocks.double(), full_matrices=False)
    root = values[..., :rank].sqrt()
    u = (left[..., :rank] * root[..., None, :]).to(blocks.dtype)
    v = (root[..., :, None] * right[..., :rank, :]).to(blocks.dtype)
    beyond = rank - u.shape[-1]
    if beyond <= 0:
        return u, v
    # zero on V's side alone: where both are zero no gradient ever comes
    spare = torch.randn(*u.shape[:-1], beyond, generator=torch.Generator().manual_seed(0)).to(u)
    spare = spare * u.square().mean().sqrt()
    return torch.cat([u, spare], -1), torch.cat([v, v.new_zeros(*v.shape[:-2], beyond, v.shape[-1])], -2)
