"""Exact selection: so many of the largest scores of every row, ties to the lowest index.

Scores are finite and not negative; what must not be chosen scores -1.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXCLUDED = -1.0


def largest(scores: Tensor, count: int) -> Tensor:
    """A boolean tensor of `scores`' shape (rows, units) with exactly `count` true entries in each row.

    A partition finds the threshold, which is several times cheaper than sorting; among equal scores the first
    are taken, so that the result is the same on every device and rank.

    Example:
        >>> largest(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
        [[False, True, True, False]]
    """
    rows, units = scores.shape
    if not 0 <= count <= units:
        raise ValueError(f"{count} of {units}")
    if count in (0, units):
        return torch.full((rows, units), count > 0, dtype=torch.bool, device=scores.device)
    threshold = scores.kthvalue(units - count + 1, dim=1, keepdim=True).values
    chosen = scores > threshold
    ties = scores == threshold
    missing = count - chosen.sum(1, keepdim=True)
    if bool((ties.sum(1, keepdim=True) > missing).any()):
        ties &= ties.cumsum(1) <= missing
    return chosen | ties


def excluding(scores: Tensor, excluded: Tensor) -> Tensor:
    """The scores, with those excluded below every other."""
    return scores.masked_fill(excluded, EXCLUDED)
