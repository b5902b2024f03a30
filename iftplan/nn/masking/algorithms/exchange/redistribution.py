"""Redistribution between layers: weights that are dropped anywhere grow in the layers that deserve them most.

As in sparse momentum (Dettmers and Zettlemoyer, arXiv 1907.04840) and the library of in-time over-parameterization (Liu
et al., arXiv 2102.02887), new weights are in proportion to a mean over a layer's active ones. Here they are as many as
the freed MACs pay for, where those papers keep the number of weights: so a plan's budget stays closed, though its layers
apply each weight at different numbers of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from iftplan.nn.masking.algorithms.exchange.drop_grow import grow, left
from iftplan.nn.masking.layer import Change, Layer

Redistribution = Literal["none", "momentum", "magnitude", "nonzeros"]
"""By what growth is divided: not at all; by the mean |m| or the mean |θ| of a layer's active weights; by their number."""


def redistributed(
    layers: Sequence[Layer], growth: Sequence[Tensor], fraction: float, by: Redistribution, *, regrow: bool
) -> list[Change]:
    """New masks: every layer drops its part, and all freed MACs are spent by merit.

    Args:
        layers: the weights, one row each.
        growth: scores by which units grow, (1, units).
        fraction: f_t, the part of the active units that is dropped.
        by: what new weights are in proportion to.
        regrow: whether what was just dropped may grow back at once.
    """
    kept = [left(x, fraction, regrow=regrow) for x in layers]
    dropped = [
        int(x.mask.count_nonzero()) - int(k.count_nonzero()) for x, k in zip(layers, kept, strict=True)
    ]
    closed = [k if regrow else k | x.mask for x, k in zip(layers, kept, strict=True)]
    free = [x.units - int(c.count_nonzero()) for x, c in zip(layers, closed, strict=True)]
    costs = [x.cost for x in layers]
    pool = sum(n * cost for n, cost in zip(dropped, costs, strict=True)) + (
        layers[0].unspent if layers else 0
    )
    counts = spend(pool, costs, free, [merit(x, by) for x in layers])
    return [
        grow(x, k, g, torch.tensor([n], device=k.device), regrow=regrow)
        for x, k, g, n in zip(layers, kept, growth, counts, strict=True)
    ]


def merit(layer: Layer, by: Redistribution) -> float:
    """Merit of a layer, which the number of its new weights is in proportion to.

    Args:
        layer: the weight.
        by: mean |m| or mean |θ| of its active weights, or their number.
    """
    active = int(layer.mask.count_nonzero())
    if by == "nonzeros" or not active:
        return float(active)
    values = layer.magnitude if by == "magnitude" else layer.gradient
    assert values is not None
    return float(values[layer.mask].double().mean())


def spend(pool: int, costs: Sequence[int], free: Sequence[int], merits: Sequence[float]) -> list[int]:
    """Number of weights that each layer gets for a pool of MACs; never more than the pool pays for.

    They are in proportion to merits, as many as the pool pays for, in whole weights. What a full layer cannot take goes to
    the others, and what is left buys weights from the dearest to the cheapest.

    Args:
        pool: MACs.
        costs: MACs of a weight, by layer.
        free: weights for which a layer has room.
        merits: what new weights are in proportion to; equal where all are 0.

    Example:
        >>> spend(100, [10, 1], [50, 50], [3.0, 1.0])
        [9, 10]
    """
    if not any(merits):
        merits = [1.0] * len(costs)
    counts, rest = [0] * len(costs), max(0, pool)
    while True:
        able = [i for i in range(len(costs)) if counts[i] < free[i] and merits[i] > 0]
        price, bought = sum(merits[i] * costs[i] for i in able), 0
        for i in able:
            share = int(rest * (merits[i] / price))
            more = min(free[i] - counts[i], share, (rest - bought) // costs[i])
            counts[i] += more
            bought += more * costs[i]
        rest -= bought
        if not bought:
            break
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        more = min(free[i] - counts[i], rest // costs[i])
        counts[i] += more
        rest -= more * costs[i]
    return counts
