"""A loop that trains under masks in JAX, run as a process of its own: stopped, or on several devices.

Arguments: `stopped`, folder of checkpoints, algorithm, number of steps, the step in which it is killed (-1 for none);
or `spread`, algorithm, and how weights and batches lie on the devices: whole, weights or batch.
"""

from __future__ import annotations

import os
import signal
import sys
from hashlib import sha256
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import iftplan as ift
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
from iftplan.runs.schedules import Updates

UPDATES = Updates(end=18, interval=3)
ALGORITHMS: dict[str, Any] = {
    "rigl": RigL(UPDATES), "set": SET(UPDATES), "gradual": Gradual(UPDATES), "srste": SRSTE(refresh=2),
}  # fmt: skip
SHAPES = {"a": (12, 32), "b": (32, 32), "c": (32, 4)}


def model(params: Any, x: Any) -> Any:
    hidden = jax.nn.relu(x @ params["a"]["kernel"])
    return jax.nn.relu(hidden @ params["b"]["kernel"]) @ params["c"]["kernel"]


def initial() -> Any:
    numbers = np.random.default_rng(0)
    return {
        name: {"kernel": jnp.asarray(numbers.normal(size=shape) * 0.3, jnp.float32)}
        for name, shape in SHAPES.items()
    }


def begun(algorithm: str) -> tuple[optax.GradientTransformationExtraArgs, Any, MaskedState]:
    """Optimizer, parameters and state before the first step."""
    params = initial()
    spec = read_model(model, params, jax.ShapeDtypeStruct((1, 12), jnp.float32))
    plan = ift.plan(spec, None, "3/4", keep_dense="none")
    optimizer = with_masks(optax.adam(1e-2), draw_masks(plan, params), ALGORITHMS[algorithm], plan=plan)
    state = optimizer.init(params)
    return optimizer, apply_masks(params, state.masks), state


def batch(step: int) -> tuple[Any, Any]:
    """The batch of a step, which follows from its number."""
    numbers = np.random.default_rng(1000 + step)
    return (
        numbers.normal(size=(16, 12)).astype(np.float32),
        numbers.normal(size=(16, 4)).astype(np.float32),
    )


def stepping(optimizer: optax.GradientTransformationExtraArgs) -> Any:
    """One compiled step: (parameters, state, inputs, targets) to new parameters and state."""

    @jax.jit
    def step(params: Any, state: MaskedState, x: Any, y: Any) -> Any:
        gradients = jax.grad(lambda p: ((model(p, x) - y) ** 2).mean())(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step


def digest(tree: Any) -> str:
    """SHA-256 (hex) over all arrays of a tree."""
    found = sha256()
    for leaf in jax.tree_util.tree_leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def stopped(folder: str, algorithm: str, steps: int, killed: int) -> None:
    """Train from the last checkpoint on, and print what became of it."""
    optimizer, params, state = begun(algorithm)
    step = stepping(optimizer)
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=2)) as manager:
        last = manager.latest_step()
        if last is not None:
            found = manager.restore(last, args=ocp.args.StandardRestore({"params": params, "state": state}))
            params, state = found["params"], found["state"]
        for number in range(int(state.steps), steps):
            params, state = step(params, state, *batch(number))
            if number == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            manager.save(number, args=ocp.args.StandardSave({"params": params, "state": state}))
        manager.wait_until_finished()
    print(int(state.steps), digest((params, state)))


def spread(algorithm: str, layout: str, steps: int) -> None:
    """Train on all devices of the host, and print how many, and what became of masks and weights."""
    optimizer, params, state = begun(algorithm)
    mesh = Mesh(jax.devices(), ("devices",))
    split = NamedSharding(mesh, PartitionSpec(None, "devices"))
    whole = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: Any) -> Any:
        by_weights = layout == "weights" and leaf.ndim == 2
        return jax.device_put(leaf, split if by_weights else whole)

    params, state = jax.tree_util.tree_map(placed, (params, state))
    rows = NamedSharding(mesh, PartitionSpec("devices")) if layout == "batch" else whole
    step = stepping(optimizer)
    for number in range(steps):
        params, state = step(params, state, *jax.device_put(batch(number), rows))
    if layout == "weights":
        lies = leaf_names(state.masks)["b.kernel"].sharding
        assert len(lies.device_set) == len(jax.devices()), lies
    print(len(jax.devices()), int(state.changes), digest(state.masks), digest(params))


if __name__ == "__main__":
    if sys.argv[1] == "stopped":
        stopped(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        spread(sys.argv[2], sys.argv[3], int(sys.argv[4]))
