"""Scores that masks are chosen by: drawn, tied, in order, too large."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def scores_of(kind: str, shape: tuple[int, int], seed: int) -> Tensor:
    generator = Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator).abs()
    match kind:
        case "ties":
            return torch.randint(0, 3, shape, generator=generator).float()
        case "zeros":
            return torch.zeros(shape)
        case "equal":
            return torch.full(shape, 0.7)
        case "ascending":
            return normal.flatten().sort().values.view(shape)
        case "descending":
            return normal.flatten().sort(descending=True).values.view(shape)
        case "huge":
            return normal * 1e38
        case "half":
            return normal.to(torch.bfloat16)
        case _:
            return normal


KINDS = ("normal", "ties", "zeros", "equal", "ascending", "descending", "huge", "half")
