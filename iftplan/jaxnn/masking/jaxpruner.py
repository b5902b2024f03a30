"""A plan's counts for the updaters of JaxPruner (arXiv 2304.14082), which take a sparsity for every weight.

JaxPruner keeps round(size·(1 - sparsity)) weights, in 32-bit floating point; the sparsities here are those for which
that is what the plan says, and no other number.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import jax
import numpy as np

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.jaxnn.masking.leaves import Tree
from iftplan.jaxnn.masking.views import views_of
from iftplan.jaxnn.sources.models import leaf_names, weight_name
from iftplan.masks import Unstructured, parse_mask
from iftplan.plans.plan import Plan


@check_arguments
def sparsity_distribution(plan: Plan) -> Callable[[Tree], Tree]:
    """Function from parameters to their sparsities, for the argument `sparsity_distribution_fn` of JaxPruner's updaters.

    Leaves that the plan does not mask get None, which JaxPruner leaves alone.

    Args:
        plan: with unstructured masks.

    Raises:
        InputError: the masks have a structure.
    """
    if not isinstance(parse_mask(plan.mask), Unstructured):
        raise InputError(
            f"JaxPruner is given a sparsity for each weight, which says nothing of {plan.mask} masks; plan unstructured masks, or train with iftplan.jaxnn.with_masks."
        )

    def sparsities(params: Tree) -> Tree:
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        shapes = {name: tuple(leaf.shape) for name, leaf in leaf_names(params).items()}
        found = {view.name: exact_sparsity(prod(view.shape), view.nnz) for view in views_of(plan, shapes)}
        return jax.tree_util.tree_unflatten(structure, [found.get(weight_name(path)) for path, _ in leaves])

    return sparsities


def exact_sparsity(size: int, nnz: int) -> float:
    """Sparsity at which JaxPruner keeps exactly `nnz` of `size` weights.

    Raises:
        InputError: there is none, because the weight is too large for 32-bit floating point, or because nothing is kept.

    Example:
        >>> exact_sparsity(8, 3)
        0.625
    """
    sparsity = 1 - nnz / size
    # updates of masks read the sparsity off the mask before, so that has to lead back to the count too
    again = np.float32(1) - np.float32(nnz) / np.float32(size)
    if nnz < 1 or any(kept_at(size, float(s)) != nnz for s in (sparsity, again)):
        raise InputError(
            f"JaxPruner cannot keep exactly {nnz} of {size} weights: it rounds in 32-bit floating point, and keeps at least one. Train with iftplan.jaxnn.with_masks instead."
        )
    return sparsity


def kept_at(size: int, sparsity: float) -> int:
    """Number of weights that JaxPruner keeps of so many at a sparsity."""
    return max(1, int(np.round(np.float32(size) * (np.float32(1) - np.float32(sparsity)))))
