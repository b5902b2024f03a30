"""The update that RigL and SET share, as in `iftplan.nn.masking.algorithms.exchange.drop_grow`.

n_drop = ⌊active·f_t⌋;  keep the active - n_drop largest |θ|;  grow the n_drop best scores among all that is
not kept, where what was just dropped may come back and what is kept cannot. The weight as a whole chooses what is
dropped, and each row grows as many units as it lost.
"""

from __future__ import annotations

from jax import Array
from jax.typing import ArrayLike

from iftplan.jaxnn.masking.top_k import best, excluding, first


def drop_grow(
    magnitude: Array, mask: Array, growth: Array, dropped: ArrayLike, *, regrow: bool = True
) -> tuple[Array, Array]:
    """New mask of one weight, whose rows keep their counts, and what grew in it; both boolean (rows, units).

    Args:
        magnitude: |θ|, (rows, units).
        mask: units that are kept now.
        growth: scores by which units grow, not negative.
        dropped: how many units of the weight make room.
        regrow: whether what was just dropped may grow back at once.
    """
    active = mask.sum(axis=1)
    ranked = excluding(magnitude, ~mask)
    kept = best(ranked, active.sum() - dropped) & mask
    if not regrow:  # where too little is inactive, the largest of what would be dropped stays
        kept = kept | (first(ranked, 2 * active - mask.shape[1]) & mask)
    closed = kept if regrow else kept | mask
    grown = first(excluding(growth, closed), active - kept.sum(axis=1)) & ~closed
    return kept | grown, grown
