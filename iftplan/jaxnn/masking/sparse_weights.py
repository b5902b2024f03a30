"""Weights that are zero off their masks at all times: gradients are too, and masks change by dropping and growing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from iftplan.jaxnn.masking.algorithms import Algorithm
from iftplan.jaxnn.masking.leaves import Tree, with_leaves, zero_off
from iftplan.jaxnn.masking.slots import cleared_slots
from iftplan.jaxnn.masking.state import Arrays, MaskedState, all_finite, first_state, moved_by, scores_of
from iftplan.jaxnn.masking.views import View
from iftplan.jaxnn.sources.models import leaf_names


@dataclass(frozen=True, slots=True, eq=False)
class SparseWeights:
    """Regime that trains only the weights that masks keep.

    Attributes:
        optimizer: what moves them.
        algorithm: how their masks change.
        views: the weights.
        seed: of growth.
        due: steps at which masks change.
        counts: (updates, weights), what each update drops or keeps.
    """

    optimizer: optax.GradientTransformationExtraArgs
    algorithm: Algorithm
    views: Sequence[View]
    seed: int
    due: Array
    counts: Array

    @classmethod
    def of(
        cls,
        optimizer: optax.GradientTransformationExtraArgs,
        algorithm: Algorithm,
        views: Sequence[View],
        seed: int,
    ) -> SparseWeights:
        """Regime with the whole schedule worked out.

        Args:
            optimizer: what moves the weights.
            algorithm: how their masks change.
            views: the weights.
            seed: of growth.
        """
        counts = np.array([algorithm.counts(view) for view in views], np.int32).reshape(len(views), -1)
        due = np.array(algorithm.due(), np.int32)
        return cls(optimizer, algorithm, views, seed, jnp.asarray(due), jnp.asarray(counts.T))

    def begin(self, masks: Tree, params: Tree) -> MaskedState:
        """State before the first step."""
        found = leaf_names(masks)
        if self.algorithm.starts_dense:
            found = {name: jnp.ones_like(mask) for name, mask in found.items()}
        return first_state(masks, found, self.optimizer.init(params), {})

    def step(
        self, gradients: Tree, state: MaskedState, params: Tree, extra: dict[str, Any]
    ) -> tuple[Tree, MaskedState]:
        """Updates of the parameters and the state after a step.

        Args:
            gradients: the dense ones.
            state: before the step.
            params: zero off the masks.
            extra: arguments of the optimizer's own.
        """
        masks, weights, dense = leaf_names(state.masks), leaf_names(params), leaf_names(gradients)
        sparse = with_leaves(gradients, {x: zero_off(dense[x], mask) for x, mask in masks.items()})

        def move() -> tuple[Tree, Any]:
            found: tuple[Tree, Any] = self.optimizer.update(sparse, state.inner, params, **extra)
            return found

        def rest() -> tuple[Tree, Any]:
            shapes = jax.eval_shape(move)[0]
            return jax.tree_util.tree_map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), state.inner

        if not len(self.due):
            updates, inner = move()
            off = {name: ~mask for name, mask in masks.items()}
            return _ending_at_zero(updates, weights, off), state._replace(steps=state.steps + 1, inner=inner)

        place = jnp.clip(jnp.searchsorted(self.due, state.steps, side="right") - 1, 0)
        due = state.pending | (self.due[place] == state.steps)
        changing = due & all_finite(gradients)
        if self.algorithm.order == "replace":
            changing = changing & all_finite([weights[name] for name in masks])
            updates, inner = jax.lax.cond(changing, rest, move)
        else:
            updates, inner = move()
        steps = leaf_names(updates)
        after = {x: zero_off(moved_by(weights[x], steps[x]), mask) for x, mask in masks.items()}

        def change() -> tuple[dict[str, Array], dict[str, Array], Any, Array]:
            finite, new, restart = all_finite(after), {}, {}
            for view, count in zip(self.views, self.counts[place], strict=True):
                name = view.name
                scores = scores_of(view, self.seed, state.steps, after[name], masks[name], dense[name])
                chosen, grew = map(view.whole, self.algorithm.update(view, scores, count))
                again = ~chosen | ((grew & ~masks[name]) if self.algorithm.keep_values else grew)
                new[name] = jnp.where(finite, chosen, masks[name])
                restart[name] = jnp.where(finite, again, ~masks[name])
            return new, restart, cleared_slots(self.optimizer, inner, params, restart), finite

        def keep() -> tuple[dict[str, Array], dict[str, Array], Any, Array]:
            return dict(masks), {name: ~mask for name, mask in masks.items()}, inner, jnp.zeros((), bool)

        new, restart, inner, changed = jax.lax.cond(changing, change, keep)
        ends = _ending_at_zero(updates, weights, restart)
        return ends, state.after(new, inner, due=due, changed=changed)


def _ending_at_zero(updates: Tree, weights: Arrays, places: Arrays) -> Tree:
    """Updates that take weights to exactly zero in places."""
    steps = leaf_names(updates)
    ends = {name: jnp.where(place, -weights[name], steps[name]) for name, place in places.items()}
    return with_leaves(updates, ends)
