"""Exact selection: so many of the largest scores of every row, ties to the lowest index.

Scores are not negative and not NaN; what must not be chosen scores -1. Counts may be traced, so one compiled program
serves every update of a schedule.
"""

from __future__ import annotations

from typing import Final

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

EXCLUDED: Final = -1.0


def first(scores: Array, counts: ArrayLike) -> Array:
    """Boolean array that keeps the `counts` largest scores of each row, ties to the lowest index.

    Args:
        scores: (rows, units).
        counts: of each row, or one for all.

    Example:
        >>> first(jnp.array([[1.0, 3.0, 3.0], [5.0, 4.0, 6.0]]), jnp.array([1, 2])).astype(int).tolist()
        [[0, 1, 0], [1, 0, 1]]
    """
    rows, units = scores.shape
    wanted = jnp.broadcast_to(jnp.clip(jnp.asarray(counts), 0, units), (rows,))[:, None]
    place = jnp.clip(units - wanted, 0, units - 1)
    threshold = jnp.take_along_axis(jnp.sort(scores, axis=1), place, axis=1)
    above, ties = scores > threshold, scores == threshold
    missing = wanted - above.sum(axis=1, keepdims=True)
    return above | (ties & (jnp.cumsum(ties, axis=1) <= missing))


def best(scores: Array, count: ArrayLike) -> Array:
    """Boolean array that keeps the `count` largest scores of all rows together, ties to the lowest index."""
    return first(scores.reshape(1, -1), count).reshape(scores.shape)


def excluding(scores: Array, excluded: Array) -> Array:
    """The scores, with those excluded below every other."""
    return jnp.where(excluded, EXCLUDED, scores)


def largest(scores: Array, units: ArrayLike, short: ArrayLike = 0, experts: int = 1) -> Array:
    """The `units` largest scores of each row, without the last in as many rows as are short: those that lose least by it.

    Args:
        scores: (rows, units).
        units: of each row.
        short: rows that keep one fewer; 0 for none.
        experts: matrices whose rows follow each other; every one has equally many short rows.
    """
    chosen = first(scores, units)
    last = jnp.where(chosen, scores, scores.max()).min(axis=1).reshape(experts, -1)
    above = last.astype(jnp.promote_types(last.dtype, jnp.float32)) - EXCLUDED
    whole = first(above, (scores.shape[0] - jnp.asarray(short)) // experts).reshape(-1, 1)
    return first(scores, jnp.asarray(units) - 1) | (chosen & whole)
