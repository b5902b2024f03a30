"""Training side by side with PyTorch: the same gradients give the same masks at every update, and the same ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("torch", reason="training is held against that of PyTorch")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import optim

from iftplan import nn
from iftplan.jaxnn import (
    SET,
    SRSTE,
    STE,
    Gradual,
    RigL,
    Static,
    TrainingLedger,
    apply_masks,
    draw_masks,
    with_masks,
)
from iftplan.jaxnn.masking.algorithms import Algorithm
from iftplan.jaxnn.sources.models import leaf_names
from iftplan.masks import parse_mask
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import to_matrix
from iftplan.nn.training.records.ledger import Spending
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Constant, Updates
from tests.support.mask_matrix import Tiny, planned

STEPS = 25
UPDATES = Updates(end=20, interval=4)
SAMPLES = 8

PAIRS: dict[str, tuple[Algorithm, Any]] = {
    "static": (Static(), nn.Static()),
    "RigL": (RigL(UPDATES), nn.RigL(UPDATES)),
    "RigL, as published": (RigL(UPDATES, order="replace"), nn.RigL(UPDATES, order=nn.Order.REPLACE)),
    "RigL, restarted": (
        RigL(UPDATES, Constant(0.5), regrow=False, keep_values=False),
        nn.RigL(UPDATES, Constant(0.5), regrow=False, keep_values=False),
    ),
    "gradual": (Gradual(UPDATES), nn.Gradual(UPDATES)),
    "STE": (STE(), nn.STE()),
    "SR-STE": (SRSTE(0.1, refresh=3), nn.SRSTE(0.1, refresh=3)),
}


def as_tree(arrays: dict[str, Any]) -> Any:
    """Arrays by dotted name as dictionaries in dictionaries."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = None if array is None else jnp.asarray(array)
    return tree


@dataclass
class Twins:
    """One network in both frameworks, and the gradients of every step."""

    plan: Plan
    model: torch.nn.Module
    params: Any
    masks: Any
    gradients: list[dict[str, np.ndarray[Any, Any]]]


def twins(plan: Plan, *, dense_start: bool) -> Twins:
    torch.manual_seed(0)
    model = nn.apply(plan, Tiny(), dense_start=dense_start)
    parameters = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    masks = {w.name: w.mask.numpy().copy() for w in nn.masked_weights(model)}
    numbers = np.random.default_rng(1)
    drawn = [
        {name: numbers.normal(size=p.shape).astype(np.float32) for name, p in parameters.items()}
        for _ in range(STEPS)
    ]
    return Twins(plan, model, as_tree(parameters), as_tree({x: masks.get(x) for x in parameters}), drawn)


@pytest.mark.parametrize("mask", ["unstructured", "2:4", "block2x2", "fan-in", "channel"])
@pytest.mark.parametrize("pair_name", PAIRS)
def test_masks_weights_and_ledger_are_those_of_pytorch(pair_name: str, mask: str) -> None:
    plan = planned("erk" if mask == "unstructured" else "uniform", mask)
    ours, theirs = PAIRS[pair_name]
    pair = twins(plan, dense_start=theirs.starts_dense)
    stepper = optim.SGD(pair.model.parameters(), lr=0.05, momentum=0.9)
    masking = nn.Masking(pair.model, stepper, theirs, structure=plan.mask)
    spending = Spending(plan, pair.model, masking)
    optimizer = with_masks(optax.sgd(0.05, momentum=0.9), pair.masks, ours, plan=plan)
    state = optimizer.init(pair.params)
    params = apply_masks(pair.params, state.masks)
    ledger = TrainingLedger(plan, state, ours)

    @jax.jit
    def step(gradients: Any, state: Any, params: Any) -> Any:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for gradients in pair.gradients:
        for name, trained in pair.model.named_parameters():
            trained.grad = torch.tensor(gradients[name])
        masking.step()
        stepper.step()
        spending.step(SAMPLES)
        params, state = step(as_tree(gradients), state, params)
        ledger.step(state, SAMPLES)
        found, weights = leaf_names(state.masks), leaf_names(params)
        for weight in nn.masked_weights(pair.model):
            assert np.array_equal(found[weight.name], weight.mask), weight.name
            assert not np.asarray(weights[weight.name])[~weight.mask.numpy()].any()
            np.testing.assert_allclose(weights[weight.name], weight.parameter.detach(), rtol=2e-5, atol=2e-6)
        assert ledger.nnz == dict(spending.nnz)
        assert (ledger.macs, ledger.dense_macs) == (spending.macs, spending.dense_macs)
        assert ledger.forward_macs == spending.forward_macs
    assert int(state.changes) == masking.exploration.updates


@pytest.mark.parametrize("mask", ["unstructured", "2:4", "block2x2", "fan-in", "channel"])
def test_drawn_masks_have_the_counts_and_the_structure_that_pytorch_checks(mask: str) -> None:
    plan = planned("erk" if mask == "unstructured" else "uniform", mask)
    model = nn.apply(plan, Tiny())
    tree = as_tree({name: p.detach().numpy() for name, p in model.named_parameters()})
    first, again, other = (leaf_names(draw_masks(plan, tree, seed)) for seed in (0, 0, 1))
    structure = parse_mask(plan.mask)
    counts = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    assert {name: int(found.sum()) for name, found in first.items()} == counts
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    for weight in nn.masked_weights(model):
        assert holds(structure, to_matrix(torch.tensor(np.asarray(first[weight.name])), weight))


def test_set_drops_what_pytorch_drops_and_grows_only_what_was_absent() -> None:
    plan = planned("erk")
    pair = twins(plan, dense_start=False)
    updates = Updates(end=20, interval=1)
    stepper = optim.SGD(pair.model.parameters(), lr=0.05)
    masking = nn.Masking(pair.model, stepper, nn.SET(updates))
    optimizer = with_masks(optax.sgd(0.05), pair.masks, SET(updates), plan=plan)
    state = optimizer.init(pair.params)
    gradients = pair.gradients[0]
    before = {name: np.asarray(mask) for name, mask in leaf_names(state.masks).items()}
    params = pair.params
    for _ in range(2):  # the first step is no update
        for name, trained in pair.model.named_parameters():
            trained.grad = torch.tensor(gradients[name])
        masking.step()
        stepper.step()
        changes, state = optimizer.update(as_tree(gradients), state, params)
        params = optax.apply_updates(params, changes)
    after = leaf_names(state.masks)
    for weight in nn.masked_weights(pair.model):
        mask, theirs, ours = before[weight.name], weight.mask.numpy(), np.asarray(after[weight.name])
        assert np.array_equal(mask & ~ours, mask & ~theirs)
        assert ours.sum() == mask.sum()
        assert (ours & ~mask).sum() == (theirs & ~mask).sum() > 0 or mask.all()
