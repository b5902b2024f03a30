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

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.jaxnn.masking.algorithms import Algorithm, Scores, Static, StraightThrough, for_training
from iftplan.jaxnn.masking.drawing import stream_seed
from iftplan.jaxnn.masking.leaves import Tree, named_leaves, with_leaves, zero_off
from iftplan.jaxnn.masking.slots import cleared_slots
from iftplan.jaxnn.masking.views import View, flat_view, views_of
from iftplan.plans.plan import Plan


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
    tables = _tables(chosen, views)
    if isinstance(chosen, StraightThrough):
        train = partial(_straight_step, moving, chosen, views, seed)
        begin = partial(_straight_state, moving, chosen, views, masks, seed)
    else:
        train = partial(_held_step, moving, chosen, views, seed, tables)
        begin = partial(_held_state, moving, chosen, views, masks)

    def init(params: Tree) -> MaskedState:
        _check_shapes(views, params)
        return begin(params)

    def update(
        updates: Tree, state: MaskedState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, MaskedState]:
        if params is None:
            raise InputError("masks need the parameters: call optimizer.update(gradients, state, params).")
        return train(updates, state, params, extra)

    return optax.GradientTransformationExtraArgs(init, update)


def mask_views(masks: Tree, plan: Plan | None = None) -> tuple[View, ...]:
    """The masked weights, in the order of the tree, with the counts that the masks have.

    Args:
        masks: a tree of masks.
        plan: what they were drawn for.

    Raises:
        StaleError: the masks are not the plan's.
    """
    found = {name: np.asarray(mask) for name, mask in named_leaves(masks).items()}
    if plan is None:
        return tuple(flat_view(name, mask.shape, int(mask.sum())) for name, mask in found.items())
    views = views_of(plan, {name: mask.shape for name, mask in found.items()})
    for view in views:
        if (kept := int(found[view.name].sum())) != view.nnz:
            raise StaleError(
                f"the mask of {view.name} keeps {kept} weights where the plan keeps {view.nnz}; draw masks of this plan."
            )
    if others := sorted(found.keys() - {view.name for view in views}):
        raise StaleError(f"the plan masks no {others[0]}; draw masks of this plan.")
    return views


def _tables(algorithm: Algorithm, views: Sequence[View]) -> tuple[Array, Array]:
    """Steps at which masks change, and the numbers of each update, (updates, weights)."""
    counts = np.array([algorithm.counts(view) for view in views], np.int32).reshape(len(views), -1)
    return jnp.asarray(np.array(algorithm.due(), np.int32)), jnp.asarray(counts.T)


def _check_shapes(views: Sequence[View], params: Tree) -> None:
    shapes = {name: tuple(leaf.shape) for name, leaf in named_leaves(params).items()}
    for view in views:
        if shapes.get(view.name) != view.shape:
            raise StaleError(
                f"the mask of {view.name} has the shape {view.shape}, but the parameters have {shapes.get(view.name, 'no such array')}; draw masks for these parameters."
            )


def _start(
    inner: Any, views: Sequence[View], masks: Mapping[str, Array], tree: Tree, dense: Any
) -> MaskedState:
    zero = jnp.zeros((), jnp.int32)
    kept = _sizes(views, masks)
    return MaskedState(zero, jnp.zeros((), bool), zero, kept, with_leaves(tree, masks), dense, inner)


def _sizes(views: Sequence[View], masks: Mapping[str, Array]) -> Array:
    return jnp.stack([masks[view.name].sum(dtype=jnp.int32) for view in views])


def _finite(leaves: Any) -> Array:
    """Whether all numbers are."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree_util.tree_leaves(leaves)]))


def _scores(view: View, seed: int, step: Array, weight: Array, mask: Array, gradient: Array) -> Scores:
    key = jax.random.fold_in(jax.random.key(stream_seed(seed, view.name) & 0x7FFFFFFF), step)
    return Scores(view.units(jnp.abs(weight)), view.units(mask) > 0, view.units(jnp.abs(gradient)), key)


# --- weights that are zero off their masks at all times ---------------------------------------------------


def _held_state(
    optimizer: Any, algorithm: Algorithm, views: Sequence[View], masks: Tree, params: Tree
) -> MaskedState:
    found = named_leaves(masks)
    if algorithm.starts_dense:
        found = {name: jnp.ones_like(mask) for name, mask in found.items()}
    return _start(optimizer.init(params), views, found, masks, {})


def _held_step(
    optimizer: Any,
    algorithm: Algorithm,
    views: Sequence[View],
    seed: int,
    tables: tuple[Array, Array],
    gradients: Tree,
    state: MaskedState,
    params: Tree,
    extra: Mapping[str, Any],
) -> tuple[Tree, MaskedState]:
    masks, weights, dense = named_leaves(state.masks), named_leaves(params), named_leaves(gradients)
    steps, counts = tables
    sparse = with_leaves(gradients, {name: zero_off(dense[name], mask) for name, mask in masks.items()})

    def step() -> tuple[Tree, Any]:
        moved: tuple[Tree, Any] = optimizer.update(sparse, state.inner, params, **extra)
        return moved

    def rest() -> tuple[Tree, Any]:
        shapes = jax.eval_shape(step)[0]
        return jax.tree_util.tree_map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), state.inner

    if not len(steps):
        updates, inner = step()
        return _landed(updates, weights, masks, {}), state._replace(steps=state.steps + 1, inner=inner)

    place = jnp.clip(jnp.searchsorted(steps, state.steps, side="right") - 1, 0)
    due = state.pending | (steps[place] == state.steps)
    changing = due & _finite(gradients)
    if algorithm.order == "replace":
        changing = changing & _finite([weights[name] for name in masks])
        updates, inner = jax.lax.cond(changing, rest, step)
    else:
        updates, inner = step()
    moved = named_leaves(updates)
    after = {name: zero_off(_moved(weights[name], moved[name]), mask) for name, mask in masks.items()}

    def change() -> tuple[dict[str, Array], dict[str, Array], Any, Array]:
        finite = _finite(after)
        new, restart = {}, {}
        for index, view in enumerate(views):
            name, mask = view.name, masks[view.name]
            scores = _scores(view, seed, state.steps, after[name], mask, dense[name])
            kept, grown = algorithm.update(view, scores, counts[place, index])
            mask_, grown_ = view.whole(kept), view.whole(grown)
            again = ~mask_ | ((grown_ & ~mask) if algorithm.keep_values else grown_)
            new[name], restart[name] = jnp.where(finite, mask_, mask), jnp.where(finite, again, ~mask)
        return new, restart, cleared_slots(optimizer, inner, params, restart), finite

    def keep() -> tuple[dict[str, Array], dict[str, Array], Any, Array]:
        return dict(masks), {name: ~mask for name, mask in masks.items()}, inner, jnp.zeros((), bool)

    new, restart, inner, changed = jax.lax.cond(changing, change, keep)
    return _landed(updates, weights, new, restart), MaskedState(
        state.steps + 1,
        due & ~changed,
        state.changes + changed,
        _sizes(views, new),
        with_leaves(state.masks, new),
        state.dense,
        inner,
    )


def _moved(weight: Array, update: Array) -> Array:
    """The weight as `optax.apply_updates` leaves it."""
    return jnp.asarray(weight + update).astype(weight.dtype)


def _landed(
    updates: Tree, weights: Mapping[str, Array], masks: Mapping[str, Array], restart: Mapping[str, Array]
) -> Tree:
    """Updates that take weights to exactly zero where they are absent, or begin anew."""
    moved = named_leaves(updates)
    ends = {
        name: jnp.where(restart.get(name, ~mask), -weights[name], moved[name]) for name, mask in masks.items()
    }
    return with_leaves(updates, ends)


# --- dense weights behind masked ones ---------------------------------------------------------------------


def _straight_state(
    optimizer: Any, algorithm: StraightThrough, views: Sequence[View], masks: Tree, seed: int, params: Tree
) -> MaskedState:
    weights, found = named_leaves(params), named_leaves(masks)
    dense = {view.name: weights[view.name] for view in views}
    new = _chosen(algorithm, views, seed, jnp.zeros((), jnp.int32), dense, found)
    return _start(optimizer.init(params), views, new, masks, dense)


def _chosen(
    algorithm: StraightThrough,
    views: Sequence[View],
    seed: int,
    step: Array,
    dense: Mapping[str, Array],
    masks: Mapping[str, Array],
) -> dict[str, Array]:
    scores = {
        view.name: _scores(view, seed, step, dense[view.name], masks[view.name], dense[view.name])
        for view in views
    }
    return {view.name: view.whole(algorithm.update(view, scores[view.name], 0)[0]) for view in views}


def _straight_step(
    optimizer: Any,
    algorithm: StraightThrough,
    views: Sequence[View],
    seed: int,
    gradients: Tree,
    state: MaskedState,
    params: Tree,
    extra: Mapping[str, Any],
) -> tuple[Tree, MaskedState]:
    masks, weights, found = named_leaves(state.masks), named_leaves(params), named_leaves(gradients)
    # what is kept is read off the parameters, as `apply_updates` has rounded them
    behind = {name: jnp.where(mask, weights[name], state.dense[name]) for name, mask in masks.items()}
    pulled = {
        name: jnp.where(mask, found[name], found[name] + algorithm.pull * behind[name])
        for name, mask in masks.items()
    }
    updates, inner = optimizer.update(
        with_leaves(gradients, pulled), state.inner, with_leaves(params, behind), **extra
    )
    moved = named_leaves(updates)
    dense = {name: _moved(value, moved[name]) for name, value in behind.items()}
    due = state.pending | ((state.steps + 1) % algorithm.refresh == 0)
    changing = due & _finite(dense)
    new = jax.lax.cond(
        changing,
        lambda: _chosen(algorithm, views, seed, state.steps + 1, dense, masks),
        lambda: dict(masks),
    )
    ends = {
        name: jnp.where(new[name], jnp.where(mask, moved[name], dense[name] - weights[name]), -weights[name])
        for name, mask in masks.items()
    }
    return with_leaves(updates, ends), MaskedState(
        state.steps + 1,
        due & ~changing,
        state.changes + changing,
        _sizes(views, new),
        with_leaves(state.masks, new),
        dense,
        inner,
    )
