"""Exact selection: so many of the largest scores of every row, ties to the lowest index.

Scores are not negative and not NaN; what must not be chosen scores -1.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Final

import torch
from torch import Tensor

EXCLUDED: Final = -1.0

_LONG: Final = 32_768  # shorter rows are cheaper to partition
_SAMPLE: Final = 65_536
"""Scores that a threshold is guessed from, where rows are many times longer."""

_BITS: Final = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


def top_k_mask(scores: Tensor, count: int) -> Tensor:
    """A boolean tensor of `scores`' shape (rows, units) with exactly `count` true entries in each row.

    Only the threshold is searched, which is several times cheaper than sorting or top-k; among equal scores the
    first are taken, so that the result is the same on every device and rank.

    Raises:
        ValueError: `count` is negative, or more than the units of a row.

    Example:
        >>> top_k_mask(torch.tensor([[1.0, 3.0, 3.0, 3.0]]), 2).tolist()
        [[False, True, True, False]]
    """
    rows, units = scores.shape
    if not 0 <= count <= units:
        raise ValueError(f"{count} of {units}")
    if count in (0, units):
        return torch.full((rows, units), count > 0, dtype=torch.bool, device=scores.device)
    if rows == 1 and units > 16 * _SAMPLE and 8 * count < units:
        likely = _likely(scores.view(-1), count)
        if likely is not None:
            chosen = top_k_mask(scores.view(-1)[likely].view(1, -1), count).view(-1)
            return torch.zeros_like(scores, dtype=torch.bool).index_fill_(1, likely[chosen], True)
    if rows == 1 and units > _LONG and scores.dtype in _BITS:
        return _largest_of_long(_ordered(scores), count)
    threshold = scores.kthvalue(units - count + 1, dim=1, keepdim=True).values
    chosen, ties = scores > threshold, scores == threshold
    missing = count - chosen.sum(1, keepdim=True)
    if bool((ties.sum(1, keepdim=True) > missing).any()):
        ties &= ties.cumsum(1, dtype=torch.int32) <= missing
    return chosen | ties


def _likely(scores: Tensor, count: int) -> Tensor | None:
    """Places of hardly more than `count` scores, the largest among them; None where a sample does not show which.

    The guess is four standard errors below the sample's quantile. It decides how long the exact choice takes, never what
    is chosen: with too few places, or with many, the whole row is looked at.
    """
    sample = scores[:: len(scores) // _SAMPLE]
    share = count / len(scores)
    rank = ceil(len(sample) * share + 4 * sqrt(len(sample) * share)) + 1
    floor = sample.kthvalue(len(sample) - rank + 1).values
    places = (scores >= floor).nonzero().view(-1)
    return places if count <= len(places) <= len(scores) // 4 else None


def first(scores: Tensor, counts: Tensor) -> Tensor:
    """Boolean tensor that keeps the `counts` largest scores of each row, ties to the lowest index.

    Example:
        >>> first(torch.tensor([[1.0, 3.0, 3.0], [5.0, 4.0, 6.0]]), torch.tensor([1, 2])).int().tolist()
        [[0, 1, 0], [1, 0, 1]]
    """
    if len(counts) == 1:
        return top_k_mask(scores, max(0, int(counts)))
    order = scores.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return ranks < counts.unsqueeze(1)


def excluding(scores: Tensor, excluded: Tensor) -> Tensor:
    """The scores, with those excluded below every other."""
    return scores.masked_fill(excluded, EXCLUDED)


def _ordered(scores: Tensor) -> Tensor:
    """Integers in the order of the scores: the bits of floats that are not negative are; excluded ones are 0."""
    bits = scores.contiguous().view(_BITS[scores.dtype])
    return bits.clamp(min=-1).to(torch.int32).add_(1)


def _largest_of_long(keys: Tensor, count: int) -> Tensor:
    """The `count` largest of one row of 31-bit integers, found by counting their high halves, then low ones."""
    high = keys.view(-1) >> 16
    half, left, alike = _from_the_top(high, count)
    low, missing, equal = _from_the_top(_low_of(keys.view(-1), high == half, alike), left)
    threshold = half << 16 | low - 1
    if missing == equal:
        return keys >= threshold
    ties = keys == threshold
    ties &= ties.cumsum(1, dtype=torch.int32) <= missing
    return ties.logical_or_(keys > threshold)


def _low_of(keys: Tensor, inside: Tensor, count: int) -> Tensor:
    """Low halves of the `count` keys inside: taken out where they are few, else beside zeros below every one of them."""
    if 8 * count < len(keys):
        return (keys[inside] & 0xFFFF) + 1
    return ((keys & 0xFFFF) + 1).mul_(inside)


def _from_the_top(values: Tensor, count: int) -> tuple[int, int, int]:
    """The `count`-th largest value, its rank among those equal to it, and how many those are."""
    histogram = torch.bincount(values)
    above = histogram.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, count))
    equal = int(histogram[-1 - place])
    return len(histogram) - 1 - place, count - int(above[place]) + equal, equal
