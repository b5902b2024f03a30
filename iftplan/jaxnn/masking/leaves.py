"""Arrays of a parameter tree by name, as plans name weights, and masks applied to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from iftplan.base.arguments import check_arguments
from iftplan.jaxnn.sources.models import leaf_names, weight_name

Tree = Any
"""Arrays in dictionaries, states of Flax, modules of Equinox and whatever else JAX takes apart."""


def with_leaves(tree: Tree, values: Mapping[str, Any]) -> Tree:
    """The tree with the values in the place of the leaves that they name."""
    return each_leaf(tree, lambda name, leaf: values.get(name, leaf))


def each_leaf(tree: Tree, change: Callable[[str, Any], Any]) -> Tree:
    """The tree with each leaf changed.

    Args:
        tree: any.
        change: (name, leaf) to what stands in the leaf's place.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return jax.tree_util.tree_unflatten(structure, [change(weight_name(path), leaf) for path, leaf in leaves])


@check_arguments
def apply_masks(params: Tree, masks: Tree) -> Tree:
    """The parameters with zeros where a mask keeps nothing; NaN and infinities there become zero too.

    Args:
        params: a parameter tree.
        masks: of the same structure, None where a leaf has no mask (`draw_masks`).

    Example:
        >>> apply_masks({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([True, False])})["w"].tolist()
        [1.0, 0.0]
    """
    found = leaf_names(masks)
    return each_leaf(params, lambda name, leaf: zero_off(leaf, found[name]) if name in found else leaf)


def zero_off(values: Array, mask: Array) -> Array:
    """The values where a mask keeps them, and zero elsewhere."""
    return jnp.where(mask, values, jnp.zeros((), values.dtype))
