"""The update that RigL and SET share: drop the smallest active weights, grow as many elsewhere.

n_drop = ⌊active·f_t⌋;  keep the active - n_drop largest |θ|;  grow the n_drop best scores among all that is
not kept, where what was just dropped may come back and what is kept cannot.

Under a structure with rows (`iftplan.nn.masks.rows`) the weight as a whole chooses what is dropped, and each row
grows as many units as it lost: so rows keep their counts, and small ones move too. Of two active units, ⌊2·f_t⌋ is
none for every f_t below a half.
"""

from __future__ import annotations

from torch import Tensor

from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding
from iftplan.runs.schedules import whole_part


def drop_grow(layer: Layer, growth: Tensor, fraction: float, *, regrow: bool = True) -> Change:
    """The new mask of one weight; every row's count is what it was.

    Args:
        layer: the weight.
        growth: scores by which units grow, (rows, units).
        fraction: f_t, the part of the active units that is dropped.
        regrow: whether what was just dropped may grow back at once.
    """
    active = layer.counts(layer.mask)
    kept = left(layer, fraction, regrow=regrow)
    return grow(layer, kept, growth, active - layer.counts(kept), regrow=regrow)


def left(layer: Layer, fraction: float, *, regrow: bool = True) -> Tensor:
    """Units that an update drops not, a boolean tensor (rows, units).

    Args:
        layer: the weight.
        fraction: f_t, the part of the active units that is dropped.
        regrow: whether what was just dropped may grow back at once.
    """
    active = layer.counts(layer.mask)
    size = int(active.sum())
    dropped = whole_part(size, fraction)
    magnitude = excluding(layer.magnitude, ~layer.mask)
    kept = layer.best(magnitude, size - dropped)
    if not regrow:  # where too little is inactive, the largest of what would be dropped stays
        kept = kept | layer.first(magnitude, 2 * active - layer.units)
    return kept


def grow(layer: Layer, kept: Tensor, growth: Tensor, counts: Tensor, *, regrow: bool = True) -> Change:
    """The new mask of one weight: what was kept, and in each row so many of the best scores beside it.

    Args:
        layer: the weight.
        kept: units that stay, (rows, units).
        growth: scores by which units grow, (rows, units).
        counts: units that each row grows.
        regrow: whether what was just dropped may grow back at once.
    """
    closed = kept if regrow else kept | layer.mask
    grown = layer.first(excluding(growth, closed), counts)
    return Change(kept | grown, grown)


def at_random(layer: Layer) -> Tensor:
    """Scores to grow by: uniform random numbers, (rows, units), the same on every device."""
    return layer.random()
