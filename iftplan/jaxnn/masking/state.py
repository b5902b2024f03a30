"""State of a masked optimizer, and what both ways of training weights under masks do to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from iftplan.jaxnn.masking.algorithms import UnitScores
from iftplan.jaxnn.masking.drawing import stream_seed
from iftplan.jaxnn.masking.leaves import Tree, with_leaves
from iftplan.jaxnn.masking.views import View

Arrays = Mapping[str, Array]
"""Arrays by the names of masked weights."""


class MaskedState(NamedTuple):
    """State of a masked optimizer, an ordinary tree of arrays, which checkpoints keep whole.

    Attributes:
        steps: number of updates that the optimizer was asked for so far.
        pending: whether a change of masks was put off, because gradients or weights were not finite.
        changes: number of times that masks have changed.
        kept: weights that each mask keeps now, in the order of the tree.
        masks: boolean arrays in a tree of the parameters' structure, None where a leaf has no mask.
        dense: θ of every masked weight by name, of methods with dense weights behind; where the mask keeps a weight, the
            parameter is θ. Else empty.
        inner: the optimizer's own state.
    """

    steps: Array
    pending: Array
    changes: Array
    kept: Array
    masks: Tree
    dense: dict[str, Array]
    inner: Any

    def after(
        self, masks: Arrays, inner: Any, *, due: Array, changed: Array, dense: Arrays | None = None
    ) -> MaskedState:
        """State after a step.

        Args:
            masks: of the next step.
            inner: the optimizer's own state.
            due: whether masks should have changed.
            changed: whether they did.
            dense: θ, of methods with dense weights behind.
        """
        tree, behind = with_leaves(self.masks, masks), self.dense if dense is None else dict(dense)
        return MaskedState(
            self.steps + 1, due & ~changed, self.changes + changed, sizes(tree), tree, behind, inner
        )


def first_state(tree: Tree, masks: Arrays, inner: Any, dense: Arrays) -> MaskedState:
    """State before the first step, with arrays of its own.

    Args:
        tree: of masks.
        masks: that the first step computes with.
        inner: the optimizer's own state.
        dense: θ, of methods with dense weights behind.
    """
    zero, never = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    own = with_leaves(tree, {name: jnp.array(mask) for name, mask in masks.items()})
    behind = {name: jnp.array(weight) for name, weight in dense.items()}
    return MaskedState(zero, never, zero, sizes(own), own, behind, inner)


def sizes(masks: Tree) -> Array:
    """Number of weights that each mask keeps, in the order of the tree."""
    return jnp.stack([mask.sum(dtype=jnp.int32) for mask in jax.tree_util.tree_leaves(masks)])


def all_finite(leaves: Any) -> Array:
    """Whether all numbers are."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree_util.tree_leaves(leaves)]))


def moved_by(weight: Array, update: Array) -> Array:
    """The weight as `optax.apply_updates` leaves it."""
    return jnp.asarray(weight + update).astype(weight.dtype)


def scores_of(view: View, seed: int, step: Array, weight: Array, mask: Array, gradient: Array) -> UnitScores:
    """Scores that an update of one weight goes by.

    Args:
        view: the weight.
        seed: of growth.
        step: counted from 0.
        weight: its values.
        mask: as it is.
        gradient: the dense one.
    """
    key = jax.random.fold_in(jax.random.key(stream_seed(seed, view.name) & 0x7FFFFFFF), step)
    return UnitScores(view.units(jnp.abs(weight)), view.units(mask) > 0, view.units(jnp.abs(gradient)), key)
