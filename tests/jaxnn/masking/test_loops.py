"""Masks in the loops that people write: Flax linen and nnx, Equinox, plain functions, and around other transformations."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

import iftplan as ift
from iftplan.base.errors import InputError, StaleError
from iftplan.jaxnn import (
    SET,
    SRSTE,
    Gradual,
    MaskedState,
    RigL,
    apply_masks,
    draw_masks,
    read_model,
    with_masks,
)
from iftplan.jaxnn.sources.models import leaf_names
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Updates

STEPS = 9
UPDATES = Updates(end=8, interval=2)
X = np.random.default_rng(0).normal(size=(16, 6, 6, 4)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 5, 16)
IMAGES = jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Conv(8, (3, 3), name="conv")(x)).mean((1, 2))
        return linen.Dense(5, name="head")(linen.relu(linen.Dense(16, name="hidden")(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(4, 8, (3, 3), rngs=rngs)
        self.hidden = nnx.Linear(8, 16, rngs=rngs)
        self.head = nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.conv(x)).mean((1, 2))
        return self.head(nnx.relu(self.hidden(x)))


@cache
def planned(model: Any, mask: str = "unstructured") -> Plan:
    return ift.plan(read_model(model, IMAGES), None, "1/2", keep_dense=("head",), mask=mask)


def loss_of(logits: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()


def hold_to(plan: Plan, params: Any, masks: Any) -> None:
    counts = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    found, weights = leaf_names(masks), leaf_names(params)
    assert {name: int(mask.sum()) for name, mask in found.items()} == counts
    for name, mask in found.items():
        assert not np.asarray(weights[name])[~np.asarray(mask)].any()


@cache
def linen_params() -> Any:
    return Linen().init(jax.random.key(0), X[:1])["params"]


def trained(optimizer: Any, params: Any, steps: int = STEPS) -> tuple[Any, MaskedState, Any]:
    """Parameters, state and the first loss and the last, of a compiled loop."""
    state = optimizer.init(params)
    inside = state if isinstance(state, MaskedState) else state[-1]
    params = apply_masks(params, inside.masks)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        loss, gradients = jax.value_and_grad(lambda p: loss_of(Linen().apply({"params": p}, X)))(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for _ in range(steps):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert step._cache_size() == 1  # counts are static and masks arrays: nothing compiles again
    return params, state, losses


def test_a_loop_of_linen_with_clipping_inside() -> None:
    plan, params = planned(Linen()), linen_params()
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
    optimizer = with_masks(inner, draw_masks(plan, params), "rigl", plan=plan, steps=400)
    params, state, losses = trained(optimizer, params)
    hold_to(plan, params, state.masks)
    assert losses[-1] < losses[0]
    assert not any(leaf_names(state.masks).keys() - {"conv.kernel", "hidden.kernel"})


def test_a_loop_of_nnx_with_its_own_optimizer() -> None:
    model = Nnx(nnx.Rngs(0))
    plan = planned(model)
    masks = draw_masks(plan, nnx.state(model, nnx.Param))
    nnx.update(model, apply_masks(nnx.state(model, nnx.Param), masks))
    optimizer = nnx.Optimizer(
        model, with_masks(optax.adam(1e-2), masks, RigL(UPDATES), plan=plan), wrt=nnx.Param
    )

    @nnx.jit
    def step(model: Nnx, optimizer: Any) -> Any:
        loss, gradients = nnx.value_and_grad(lambda m: loss_of(m(X)))(model)
        optimizer.update(model, gradients)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(STEPS)]
    assert losses[-1] < losses[0]
    hold_to(plan, nnx.state(model, nnx.Param), nnx.as_pure(optimizer.opt_state).masks)
    moved = leaf_names(nnx.as_pure(optimizer.opt_state).masks)
    assert any(not np.array_equal(moved[name], mask) for name, mask in leaf_names(masks).items())


def test_a_loop_of_equinox() -> None:
    equinox = pytest.importorskip("equinox", reason="Equinox is not installed")
    one, two = jax.random.split(jax.random.key(0))
    layers = [equinox.nn.Linear(4, 16, key=one), equinox.nn.Linear(16, 5, key=two)]
    model = equinox.nn.Sequential([layers[0], equinox.nn.Lambda(jax.nn.relu), layers[1]])
    plan = ift.plan(
        read_model(model, jax.ShapeDtypeStruct((4,), jnp.float32)),
        None,
        "1/2",
        keep_dense="none",
        mask="fan-in",
    )
    params, static = equinox.partition(model, equinox.is_array)
    optimizer = with_masks(optax.adam(1e-2), draw_masks(plan, params), SET(UPDATES), plan=plan)
    state = optimizer.init(params)
    params = apply_masks(params, state.masks)
    for _ in range(3):
        gradients = jax.grad(lambda p: loss_of(jax.vmap(equinox.combine(p, static))(X[:, 0, 0])))(params)
        updates, state = optimizer.update(gradients, state, params)
        params = equinox.apply_updates(params, updates)
    hold_to(plan, params, state.masks)
    assert all(len(set(np.asarray(mask).sum(1))) == 1 for mask in leaf_names(state.masks).values())


def test_momentum_and_moments_of_what_grew_begin_at_zero() -> None:
    plan, params = planned(Linen()), linen_params()
    masks = draw_masks(plan, params)
    optimizer = with_masks(optax.adam(1e-2), masks, RigL(Updates(end=8, interval=4)), plan=plan)
    before = leaf_names(masks)
    params, state, _ = trained(optimizer, params, steps=5)  # the update is in the fifth
    assert int(state.changes) == 1
    moments = state.inner[0]
    for name, mask in leaf_names(state.masks).items():
        old, new = np.asarray(before[name]), np.asarray(mask)
        grown = new & ~old
        assert grown.any()
        for slot in (leaf_names(moments.mu)[name], leaf_names(moments.nu)[name]):
            assert not np.asarray(slot)[grown | ~new].any()
            assert np.asarray(slot)[new & old].any()
        assert not np.asarray(leaf_names(params)[name])[grown].any()


MATRIX = {"w": jnp.asarray(np.random.default_rng(2).normal(size=(6, 6)), jnp.float32), "b": jnp.ones(6)}
TWELVE = {"w": (jnp.arange(36) % 3 == 0).reshape(6, 6), "b": None}


def moved(algorithm: Any, gradients: list[Any], seed: int = 0) -> list[MaskedState]:
    """States after steps with given gradients, of a matrix that is masked without a plan."""
    optimizer = with_masks(optax.sgd(1e-2), TWELVE, algorithm, seed=seed)
    state, params, update = optimizer.init(MATRIX), apply_masks(MATRIX, TWELVE), jax.jit(optimizer.update)
    found = []
    for gradient in gradients:
        _, state = update(gradient, state, params)
        found.append(state)
    return found


def test_a_change_is_put_off_while_gradients_are_not_finite() -> None:
    infinite = {**MATRIX, "b": MATRIX["b"] * jnp.inf}  # also of what has no mask
    states = moved(RigL(end=8, interval=2), [MATRIX, MATRIX, infinite, infinite, MATRIX])
    seen = [(int(state.changes), bool(state.pending)) for state in states]
    assert seen == [(0, False), (0, False), (0, True), (0, True), (1, False)]


def test_infinite_gradients_off_the_masks_do_not_reach_the_weights() -> None:
    optimizer = with_masks(optax.sgd(1e-2), TWELVE)
    gradients = {**MATRIX, "w": jnp.where(TWELVE["w"], 1.0, jnp.nan)}
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(MATRIX), apply_masks(MATRIX, TWELVE))
    assert np.isfinite(np.asarray(updates["w"])).all()


def test_growth_at_random_is_the_seed_s_and_keeps_the_count_without_a_plan() -> None:
    ends = [moved(SET(end=8, interval=1), [MATRIX] * 3, seed)[-1] for seed in (0, 0, 1)]
    masks = [np.asarray(leaf_names(state.masks)["w"]) for state in ends]
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert [int(mask.sum()) for mask in masks] == [12] * 3 == [int(state.kept[0]) for state in ends]


def test_dense_weights_behind_masked_ones_are_in_the_state() -> None:
    plan, params = planned(Linen(), "2:4"), linen_params()
    optimizer = with_masks(optax.adam(1e-2), draw_masks(plan, params), SRSTE(), plan=plan)
    params, state, losses = trained(optimizer, params)
    hold_to(plan, params, state.masks)
    for name, mask in leaf_names(state.masks).items():
        kept, weights = np.asarray(state.dense[name])[mask], np.asarray(leaf_names(params)[name])[mask]
        np.testing.assert_allclose(
            kept, weights, rtol=1e-6
        )  # a compiler may round a sum of its own otherwise
        assert np.asarray(state.dense[name]).all()
        inputs = np.moveaxis(np.asarray(mask), -1, 0).reshape(mask.shape[-1], -1, 4)
        assert (inputs.sum(2) == 2).all()
    assert losses[-1] < losses[0]


def test_gradual_pruning_begins_with_every_weight() -> None:
    plan, params = planned(Linen()), linen_params()
    optimizer = with_masks(optax.sgd(0.1), draw_masks(plan, params), Gradual(UPDATES), plan=plan)
    assert all(mask.all() for mask in leaf_names(optimizer.init(params).masks).values())
    params, state, _ = trained(optimizer, params)
    hold_to(plan, params, state.masks)


@pytest.mark.parametrize(
    ("give", "error", "says"),
    [
        (lambda plan, masks: with_masks(optax.sgd(1.0), masks, "rigel"), InputError, "Did you mean 'rigl'"),
        (lambda plan, masks: with_masks(optax.sgd(1.0), masks, "rigl"), InputError, "give `steps`"),
        (
            lambda plan, masks: with_masks(optax.sgd(1.0), {"hidden": masks["hidden"]}, plan=plan),
            StaleError,
            "conv.kernel is not there",
        ),
        (
            lambda plan, masks: with_masks(
                optax.sgd(1.0), jax.tree_util.tree_map(jnp.ones_like, masks), plan=plan
            ),
            StaleError,
            "keeps 288 weights where the plan keeps 144",
        ),
        (
            lambda plan, masks: with_masks(optax.sgd(1.0), masks).init(
                {"hidden": {"kernel": jnp.ones((2, 2))}}
            ),
            StaleError,
            "no such array",
        ),
        (
            lambda plan, masks: with_masks(optax.sgd(1.0), masks).update({}, None, None),
            InputError,
            "optimizer.update\\(gradients, state, params\\)",
        ),
        (lambda plan, masks: draw_masks(planned(Linen(), "1:2T"), linen_params()), InputError, "in PyTorch"),
    ],
)
def test_what_cannot_be_says_what_can(give: Any, error: type[Exception], says: str) -> None:
    plan = planned(Linen())
    with pytest.raises(error, match=says):
        give(plan, draw_masks(plan, linen_params()))


def test_optimizers_of_parts_of_the_weights_are_cleared_too() -> None:
    """Optax puts a node of its own in the place of weights that a part does not move."""
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4))}
    masks = {"a": jnp.eye(4, dtype=bool), "b": jnp.eye(4, dtype=bool)}
    parts = optax.multi_transform({"t": optax.adam(1e-2), "f": optax.set_to_zero()}, {"a": "t", "b": "f"})
    optimizer = with_masks(parts, masks, RigL(Updates(end=8, interval=2)))
    state = optimizer.init(params)
    for _ in range(5):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert int(state.masks["a"].sum()) == 4
