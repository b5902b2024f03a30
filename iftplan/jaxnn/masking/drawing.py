"""Random masks of a plan with exact counts, one stream of random numbers for each weight."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iftplan.base.arguments import check_arguments
from iftplan.jaxnn.masking.leaves import Tree
from iftplan.jaxnn.masking.views import View, views_of
from iftplan.jaxnn.sources.models import leaf_names, weight_name
from iftplan.plans.plan import Plan


@check_arguments
def draw_masks(plan: Plan, params: Tree, seed: int = 0) -> Tree:
    """The plan's masks as a tree of the parameters' structure: boolean arrays, and None where a leaf has no mask.

    Every layer's masks keep exactly as many weights as the plan says, in its structure. A weight's stream of random
    numbers depends on `seed` and its name alone, so masks do not depend on the order of layers or on devices.

    Args:
        plan: made from a spec of the same model.
        params: its parameters, or their shapes: dictionaries, a state of `flax.nnx`, an Equinox module.
        seed: any integer.

    Raises:
        StaleError: a weight of the plan is missing, or has another size.
        InputError: the structure does not fit a weight.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    shapes = {name: tuple(leaf.shape) for name, leaf in leaf_names(params).items()}
    masks = {view.name: jnp.asarray(draw_mask(view, seed)) for view in views_of(plan, shapes)}
    return jax.tree_util.tree_unflatten(structure, [masks.get(weight_name(path)) for path, _ in leaves])


def draw_mask(view: View, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Random mask of one weight: every mask of its structure and count is equally likely."""
    stream = np.random.Generator(np.random.Philox(stream_seed(seed, view.name)))
    rows, units = view.rows.shape
    kept, short = view.kept
    counts = np.full((rows, 1), kept)
    for expert in np.split(np.arange(rows), view.rows.experts) if short else ():
        counts[stream.permutation(expert)[: short // view.rows.experts]] -= 1
    ranks = stream.random((rows, units)).argsort(1, kind="stable").argsort(1, kind="stable")
    return np.ascontiguousarray(view.whole(ranks < counts))


def stream_seed(seed: int, name: str) -> int:
    """Seed of one weight's random numbers, 63 bits."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8]) >> 1
