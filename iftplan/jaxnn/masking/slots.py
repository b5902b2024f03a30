"""Optimizer state of masked weights: whatever has the weight's shape is zero where a weight is not, or begins anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from iftplan.jaxnn.masking.leaves import Tree, each_leaf, zero_off


def cleared_slots(optimizer: Any, state: Any, params: Tree, restart: Mapping[str, Array]) -> Any:
    """The optimizer's state with zeros for weights that restart, in momentum, moments and whatever else it keeps of them.

    Args:
        optimizer: an Optax transformation.
        state: its state.
        params: that it moves.
        restart: name of a weight → where it is absent or begins anew, of the weight's shape.
    """
    # weights without masks have no place that restarts
    places = each_leaf(params, lambda name, _: restart.get(name, jnp.zeros((), bool)))

    def cleared(slot: Any, place: Array) -> Any:
        return zero_off(slot, ~place) if getattr(slot, "shape", None) == place.shape and place.shape else slot

    return optax.tree_utils.tree_map_params(
        optimizer, cleared, state, places, is_leaf=lambda slot: isinstance(slot, optax.MaskedNode)
    )
