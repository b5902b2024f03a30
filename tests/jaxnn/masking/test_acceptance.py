"""Wide and parallel plans of a small ViT and a small ResNet: applied, trained for 200 steps, exact at every update, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")
pytest.importorskip("orbax.checkpoint", reason="Orbax, which Flax brings, is not installed")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen

import iftplan as ift
from iftplan.jaxnn import RigL, TrainingLedger, apply, apply_masks, draw_masks, with_masks
from iftplan.jaxnn.sources.models import leaf_names
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost

STEPS, INTERVAL, END = 200, 20, 150
SIZE, CLASSES, BATCH = 8, 4, 16
IMAGES = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)


class ViT(linen.Module):
    """Two blocks over sixteen patches."""

    embed: int = 16
    hidden: int = 32
    heads: int = 2

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(self.embed, (2, 2), strides=2)(x).reshape(x.shape[0], -1, self.embed)
        for _ in range(2):
            x = x + linen.MultiHeadDotProductAttention(self.heads)(linen.LayerNorm()(x))
            x = x + linen.Dense(self.embed)(linen.gelu(linen.Dense(self.hidden)(linen.LayerNorm()(x))))
        return linen.Dense(CLASSES)(x.mean(1))


class ResNet(linen.Module):
    """Three residual blocks, one of which halves the image."""

    width: int = 8

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(self.width, (3, 3))(x)
        for stride in (1, 2, 1):
            y = linen.relu(linen.Conv(self.width, (3, 3), strides=stride)(x))
            y = linen.Conv(self.width, (3, 3))(y)
            x = linen.relu(y + (x if stride == 1 else linen.Conv(self.width, (1, 1), strides=2)(x)))
        return linen.Dense(CLASSES)(x.mean((1, 2)))


def data() -> tuple[Any, Any]:
    """Noise with a bright quarter, and which one that is."""
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(BATCH, SIZE, SIZE, 3)).astype(np.float32)
    y = np.arange(BATCH) % CLASSES
    half = SIZE // 2
    for image, label in zip(x, y, strict=True):
        image[label // 2 * half :][:half, label % 2 * half :][:, :half] += 1
    return x, y


def exact(plan: Plan, masks: Any, params: Any) -> None:
    """Every layer keeps the plan's count, and no weight is off the masks."""
    found, weights = leaf_names(masks), leaf_names(params)
    for layer in plan.layers:
        if layer.maskable:
            own = {x: m for x, m in found.items() if x == layer.weight or x.startswith(f"{layer.name}.")}
            assert sum(int(mask.sum()) for mask in own.values()) == layer.nnz, layer.name
            assert sum(mask.size for mask in own.values()) == layer.capacity, layer.name
    for name, mask in found.items():
        assert not np.asarray(weights[name])[~np.asarray(mask)].any(), name


@pytest.mark.slow
@pytest.mark.parametrize("family", ["wide", "parallel"])
@pytest.mark.parametrize("dense", [ViT(), ResNet()], ids=["ViT", "ResNet"])
def test_two_hundred_steps_are_exact_and_resumed_to_the_bit(
    dense: linen.Module, family: str, tmp_path: Path
) -> None:
    plan = ift.plan(ift.read_model(dense, IMAGES), family, "3/4", scope="matrices")
    net, (x, y) = apply(plan, dense, IMAGES), data()
    params = net.init(jax.random.key(0), x)["params"]
    algorithm = RigL(end=END, interval=INTERVAL)
    optimizer = with_masks(optax.adam(3e-3), draw_masks(plan, params), algorithm, plan=plan)
    state = optimizer.init(params)
    params = apply_masks(params, state.masks)
    begun = (params, state)
    ledger = TrainingLedger(plan, state, algorithm)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            logits = net.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    checkpointer, losses, changes = ocp.StandardCheckpointer(), [], 0
    for number in range(STEPS):
        if number == STEPS // 2:
            checkpointer.save(tmp_path / "half", {"params": params, "state": state})
        params, state, value = step(params, state)
        ledger.step(state, BATCH)
        losses.append(float(value))
        if int(state.changes) > changes:
            changes += 1
            exact(plan, state.masks, params)
    exact(plan, state.masks, params)
    assert changes == len(range(INTERVAL, END, INTERVAL)) == 7
    assert losses[-1] < losses[0] / 2
    cost = TrainingCost.of(plan)  # an update looks at the gradients of all weights
    assert ledger.macs == BATCH * (STEPS * cost.step() + 7 * (cost.opened - cost.forward()))
    checkpointer.wait_until_finished()
    found = checkpointer.restore(tmp_path / "half", {"params": begun[0], "state": begun[1]})
    again, resumed = found["params"], found["state"]
    for _ in range(STEPS // 2, STEPS):
        again, resumed, _ = step(again, resumed)
    pairs = zip(*map(jax.tree_util.tree_leaves, ((params, state), (again, resumed))), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)
