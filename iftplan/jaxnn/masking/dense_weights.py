"""Weights with a dense θ behind them, which is what the optimizer moves; masks are chosen from θ for the step that comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from iftplan.jaxnn.masking.algorithms import StraightThrough
from iftplan.jaxnn.masking.leaves import Tree, with_leaves
from iftplan.jaxnn.masking.state import Arrays, MaskedState, all_finite, first_state, moved_by, scores_of
from iftplan.jaxnn.masking.views import View
from iftplan.jaxnn.sources.models import leaf_names


@dataclass(frozen=True, slots=True, eq=False)
class DenseWeights:
    """Regime that trains all weights, of which forward passes see those that masks keep.

    Attributes:
        optimizer: what moves them.
        algorithm: how masks are chosen, and what pulls at θ.
        views: the weights.
        seed: of growth.
    """

    optimizer: optax.GradientTransformationExtraArgs
    algorithm: StraightThrough
    views: Sequence[View]
    seed: int

    def begin(self, masks: Tree, params: Tree) -> MaskedState:
        """State before the first step; the parameters are θ."""
        weights = leaf_names(params)
        dense = {view.name: weights[view.name] for view in self.views}
        chosen = self._chosen(jnp.zeros((), jnp.int32), dense, leaf_names(masks))
        return first_state(masks, chosen, self.optimizer.init(params), dense)

    def step(
        self, gradients: Tree, state: MaskedState, params: Tree, extra: dict[str, Any]
    ) -> tuple[Tree, MaskedState]:
        """Updates of the parameters and the state after a step.

        Args:
            gradients: of the forward weights, which are θ's.
            state: before the step.
            params: zero off the masks.
            extra: arguments of the optimizer's own.
        """
        masks, weights, found = leaf_names(state.masks), leaf_names(params), leaf_names(gradients)
        # what is kept is read off the parameters, as `apply_updates` has rounded them
        behind = {x: jnp.where(mask, weights[x], state.dense[x]) for x, mask in masks.items()}
        pull = self.algorithm.pull
        pulled = {x: jnp.where(mask, found[x], found[x] + pull * behind[x]) for x, mask in masks.items()}
        updates, inner = self.optimizer.update(
            with_leaves(gradients, pulled), state.inner, with_leaves(params, behind), **extra
        )
        steps = leaf_names(updates)
        dense = {name: moved_by(value, steps[name]) for name, value in behind.items()}
        due = state.pending | ((state.steps + 1) % self.algorithm.refresh == 0)
        changing = due & all_finite(dense)
        new = jax.lax.cond(changing, lambda: self._chosen(state.steps + 1, dense, masks), lambda: dict(masks))
        ends = {
            x: jnp.where(new[x], jnp.where(mask, steps[x], dense[x] - weights[x]), -weights[x])
            for x, mask in masks.items()
        }
        after = state.after(new, inner, due=due, changed=changing, dense=dense)
        return with_leaves(updates, ends), after

    def _chosen(self, step: Array, dense: Arrays, masks: Arrays) -> dict[str, Array]:
        found = {}
        for view in self.views:
            weight = dense[view.name]
            scores = scores_of(view, self.seed, step, weight, masks[view.name], weight)
            found[view.name] = view.whole(self.algorithm.update(view, scores, 0)[0])
        return found
