"""MEST by hand: importance of weight and gradient, growth beside what is there, and what its updates cost nothing for."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

import iftplan as ift
from iftplan.nn import MEST, SET, Masking, sparsify
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.runs.schedules import Constant, Updates
from tests.support.models.hand_layers import layer, ones

UPDATES = Updates(end=4, interval=1)

#             0    1    2    3    4    5
WEIGHTS = [0.5, 0.1, 0.2, 0.0, 0.0, 0.0]
GRADIENT = [0.0, 20.0, 0.0, 0.0, 0.0, 0.0]
MASK = [1, 1, 1, 0, 0, 0]


def test_the_importance_of_a_weight_is_its_size_and_that_of_its_gradient() -> None:
    """.5, .1 + .01·20 = .3 and .2: a third of three drops weight 2, where magnitudes alone would drop weight 1."""
    (change,) = MEST(UPDATES, Constant(0.34)).update([layer(WEIGHTS, MASK, GRADIENT)], 1)
    assert [i for i in (0, 1, 2) if change.mask[0, i]] == [0, 1]
    assert len(ones(change.mask)) == 3 and len(ones(change.grown)) == 1 and ones(change.grown)[0] > 2
    (change,) = MEST(UPDATES, Constant(0.34), importance=0).update([layer(WEIGHTS, MASK, GRADIENT)], 1)
    assert [i for i in (0, 1, 2) if change.mask[0, i]] == [0, 2]


def test_under_a_soft_bound_weights_grow_beside_those_that_are_there() -> None:
    mest = MEST(UPDATES, Constant(0.67), soft=True)
    (change,) = mest.update([layer(WEIGHTS, MASK, GRADIENT)], 1)
    assert ones(change.mask)[:3] == [0, 1, 2] and len(ones(change.grown)) == 2
    # at the next update three stay, of the five that there are, and two others come
    fuller = layer([0.5, 0.1, 0.2, 0.4, 0.6, 0.0], [1, 1, 1, 1, 1, 0], GRADIENT, target=3)
    (change,) = mest.update([fuller], 2)
    assert ones(change.mask) == [0, 3, 4, 5]  # 1 and 2 may not come back at once, so there is room for one
    (change,) = mest.update([fuller], 4)
    assert (ones(change.mask), ones(change.grown)) == ([0, 3, 4], [])
    assert mest.due(4) and not MEST(UPDATES).due(4)


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def trained(algorithm: Algorithm, steps: int) -> tuple[nn.Module, Masking]:
    model = sparsify(perceptron(), 0.75)
    masks = Masking(model, optim.SGD(model.parameters(), 0.1, momentum=0.9), algorithm)
    torch.manual_seed(1)
    for _ in range(steps):
        masks.optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        masks.step()
        masks.optimizer.step()
    return model, masks


def test_without_gradients_it_is_set_to_the_bit() -> None:
    updates = Updates(end=20, interval=4)
    one, _ = trained(MEST(updates, importance=0), 25)
    other, _ = trained(SET(updates), 25)
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    another, masks = trained(MEST(updates, importance=10), 25)
    assert not all(map(torch.equal, one.state_dict().values(), another.state_dict().values()))
    assert not masks.taken.dense_gradient and not masks.wants_dense_gradient


def test_a_soft_bound_ends_at_the_plans_count() -> None:
    updates = Updates(end=20, interval=4)
    _, start = trained(MEST(updates, soft=True), 0)
    _, middle = trained(MEST(updates, Constant(0.3), soft=True), 10)
    _, end = trained(MEST(updates, Constant(0.3), soft=True), 21)
    count = sum(start.nnz.values())
    assert sum(middle.nnz.values()) == count + int(0.3 * count)
    assert end.nnz == start.nnz


def test_a_soft_bound_needs_masks_with_room() -> None:
    model = sparsify(perceptron(), 0.5, structure="2:4")
    with pytest.raises(ift.InputError, match="take MEST with soft=False, or plan unstructured masks"):
        Masking(model, optim.SGD(model.parameters(), 0.1), MEST(UPDATES, soft=True))
