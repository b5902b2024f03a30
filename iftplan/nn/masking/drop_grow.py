"""The update that RigL and SET share: drop the smallest active weights, grow as many elsewhere.

n_drop = ⌊active·f_t⌋;  keep the active - n_drop largest |θ|;  grow the n_drop best scores among all that is
not kept, where what was just dropped may come back and what is kept cannot.
"""

from __future__ import annotations

from dataclasses import replace
from math import floor

import torch
from torch import Tensor

from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masking.selection import excluding, largest


def drop_grow(layer: Layer, growth: Tensor, fraction: float, *, regrow: bool = True) -> Change:
    """The new mask of one weight; its count is what it was.

    Args:
        layer: the weight.
        growth: scores by which units grow, (rows, units).
        fraction: f_t, the part of the active units that is dropped.
        regrow: whether what was just dropped may grow back at once.
    """
    if layer.short:
        return _apart(layer, growth, fraction, regrow)
    # a product such as 100·.29 comes out a hair below the whole number that it is
    dropped = min(layer.active, max(0, floor(round(layer.active * fraction, 6))))
    kept = largest(excluding(layer.magnitude, ~layer.mask), layer.active - dropped)
    closed = kept if regrow else kept | layer.mask
    room = int((~closed).sum(1).min()) if len(closed) else 0
    if room < dropped:  # too little is inactive: the largest of what would be dropped stays
        kept = largest(excluding(layer.magnitude, ~layer.mask), layer.active - room)
        closed, dropped = kept | layer.mask, room
    grown = largest(excluding(growth, closed), dropped)
    return Change(kept | grown, grown)


def _apart(layer: Layer, growth: Tensor, fraction: float, regrow: bool) -> Change:
    """Rows that keep differently many units, each kind for itself."""
    mask, grown = torch.zeros_like(layer.mask), torch.zeros_like(layer.mask)
    for rows, part in layer.parts():
        change = drop_grow(replace(part, short=0), growth[rows], fraction, regrow=regrow)
        mask[rows], grown[rows] = change.mask, change.grown
    return Change(mask, grown)
