"""Sparse training in any loop that uses Optax: a transformation around the optimizer's.

    masks = draw_masks(plan, params)
    optimizer = with_masks(optax.adam(1e-3), masks, "rigl", plan=plan, steps=10_000)
    state = optimizer.init(params)
    params = apply_masks(params, state.masks)
    ...
    updates, state = optimizer.update(gradients, state, params)
    params = optax.apply_updates(params, updates)

After `apply_updates`, weights are zero off their masks. The gradients are those of an ordinary loss, so they are dense
already: nothing has to be asked for. Counts are static and masks are arrays of the state, so a step compiles once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optax

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.jaxnn.masking.algorithms import Algorithm, Static, StraightThrough, for_training
from iftplan.jaxnn.masking.dense_weights import DenseWeights
from iftplan.jaxnn.masking.leaves import Tree
from iftplan.jaxnn.masking.sparse_weights import SparseWeights
from iftplan.jaxnn.masking.state import MaskedState
from iftplan.jaxnn.masking.views import View, flat_view, views_of
from iftplan.jaxnn.sources.models import leaf_names
from iftplan.plans.plan import Plan


@check_arguments
def with_masks(
    optimizer: optax.GradientTransformation,
    masks: Tree,
    algorithm: Algorithm | str = Static(),  # noqa: B008  (a frozen value)
    *,
    plan: Plan | None = None,
    seed: int = 0,
    steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Optax transformation that trains weights under masks, and changes the masks as the algorithm says.

    What limits gradients by their norm belongs inside, `with_masks(optax.chain(clip, adam), …)`, because gradients off the
    masks come in from outside.

    Args:
        optimizer: what moves the weights.
        masks: with counts to keep (`draw_masks`).
        algorithm: how masks change, as a value or by name, such as "rigl".
        plan: what the masks were drawn for, which knows their structure; without one they have none.
        seed: random seed of growth.
        steps: optimizer steps of the whole training; algorithms whose schedule is a fraction of training need them.

    Raises:
        InputError: no such algorithm, one that has to know the length of training, or masks of another structure.
        StaleError: the masks are not the plan's.
    """
    chosen = for_training(algorithm, steps)
    views = mask_views(masks, plan)
    moving = optax.with_extra_args_support(optimizer)
    regime = (
        DenseWeights(moving, chosen, views, seed)
        if isinstance(chosen, StraightThrough)
        else SparseWeights.of(moving, chosen, views, seed)
    )

    def init(params: Tree) -> MaskedState:
        _check_shapes(views, params)
        return regime.begin(masks, params)

    def update(
        updates: Tree, state: MaskedState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, MaskedState]:
        if params is None:
            raise InputError("masks need the parameters: call optimizer.update(gradients, state, params).")
        return regime.step(updates, state, params, extra)

    return optax.GradientTransformationExtraArgs(init, update)


def mask_views(masks: Tree, plan: Plan | None = None) -> tuple[View, ...]:
    """The masked weights, in the order of the tree, with the counts that the masks have.

    Args:
        masks: a tree of masks.
        plan: what they were drawn for.

    Raises:
        InputError: there are none, or they have not the plan's structure.
        StaleError: they have not the plan's counts.
    """
    found = {name: np.asarray(mask) for name, mask in leaf_names(masks).items()}
    if not found:
        raise InputError(
            "the tree has no masks, so there is nothing to train under; draw them with draw_masks."
        )
    if plan is None:
        return tuple(flat_view(name, mask.shape, int(mask.sum())) for name, mask in found.items())
    views = views_of(plan, {name: mask.shape for name, mask in found.items()})
    for view in views:
        if (kept := int(found[view.name].sum())) != view.nnz:
            raise StaleError(
                f"the mask of {view.name} keeps {kept} weights where the plan keeps {view.nnz}; draw masks of this plan."
            )
        if not _fits(view, found[view.name]):
            raise InputError(f"the mask of {view.name} is not a {plan.mask} mask; draw masks of this plan.")
    if others := sorted(found.keys() - {view.name for view in views}):
        raise StaleError(f"the plan masks no {others[0]}; draw masks of this plan.")
    return views


def _fits(view: View, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> bool:
    """Whether a mask consists of whole units, of which every row keeps as many as it should."""
    units = view.units(mask) > 0
    (kept, short), counts = view.kept, units.sum(1)
    whole = bool((view.whole(units) == mask).all())
    return whole and bool(counts.min() >= kept - (short > 0) and counts.max() <= kept)


def _check_shapes(views: Sequence[View], params: Tree) -> None:
    shapes = {name: tuple(leaf.shape) for name, leaf in leaf_names(params).items()}
    for view in views:
        if shapes.get(view.name) != view.shape:
            raise StaleError(
                f"the mask of {view.name} has the shape {view.shape}, but the parameters have {shapes.get(view.name, 'no such array')}; draw masks for these parameters."
            )
