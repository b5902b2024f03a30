"""Random subsets of an exact size: what random masks are drawn with."""

from __future__ import annotations

from typing import Final

import torch
from torch import Generator, Tensor

_SMALL: Final = 4096  # below, a permutation is cheap


def subset(numel: int, kept: int, generator: Generator) -> Tensor:
    """Uniformly random set of `kept` out of `numel`, a boolean vector.

    A coin for each, then the surplus (or what is missing) is drawn by the same means: by symmetry the result
    is uniform, and a permutation of many millions is not needed.

    Args:
        numel: length of the vector.
        kept: how many are true.
        generator: of the random numbers.
    """
    if numel <= _SMALL:
        mask = torch.zeros(numel, dtype=torch.bool)
        mask[torch.randperm(numel, generator=generator)[:kept]] = True
        return mask
    mask = torch.rand(numel, generator=generator) < kept / numel
    surplus = int(mask.count_nonzero()) - kept
    if surplus:
        candidates = (mask if surplus > 0 else ~mask).nonzero().view(-1)
        mask[candidates[subset(len(candidates), abs(surplus), generator)]] = surplus < 0
    return mask


def subset_of_each(rows: int, units: int, kept: int, generator: Generator) -> Tensor:
    """Uniformly random set of `kept` out of the units of every row, a boolean tensor (rows, units).

    Args:
        rows: how many, each drawn by itself.
        units: of a row.
        kept: of a row.
        generator: of the random numbers.
    """
    order = torch.rand(rows, units, generator=generator).argsort(1)
    return torch.zeros(rows, units, dtype=torch.bool).scatter_(1, order[:, :kept], True)
