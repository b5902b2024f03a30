"""GraNet by hand: a cubic, regeneration after it, where it starts, and that it is gradual pruning without that."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

import iftplan as ift
from iftplan.nn import Gradual, GraNet, Masking, apply, masked_weights, sparsify
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.runs.schedules import Constant, Updates
from tests.support.models.hand_layers import layer, ones

#             0    1    2    3    4    5    6    7
WEIGHTS = [0.9, 0.1, 0.5, 0.2, 0.4, 0.3, 0.8, 0.7]
GRADIENT = [0.2, 0.9, 0.1, 0.4, 0.8, 0.3, 0.6, 9.0]
ALL = [1] * 8
UPDATES = Updates(end=4, interval=1)


def test_pruning_and_regeneration_by_hand() -> None:
    """Half way along the cubic 2 + ⌈6·(1/2)³⌉ = 3 of 8 are left: 0, 6, 7. A third of them, 7, makes room: for itself."""
    x = layer(WEIGHTS, ALL, GRADIENT, target=2)
    granet = GraNet(UPDATES, Constant(0.34))
    (change,) = granet.update([x], 2)
    assert (ones(change.mask), ones(change.grown)) == ([0, 6, 7], [7])
    # without its gradient the largest of all that is not kept is 1's, which was pruned a moment ago
    (change,) = granet.update([layer(WEIGHTS, ALL, [*GRADIENT[:7], 0.0], target=2)], 2)
    assert (ones(change.mask), ones(change.grown)) == ([0, 1, 6], [1])


def test_at_the_end_the_counts_are_the_plans() -> None:
    x = layer(WEIGHTS, ALL, GRADIENT, target=2)
    granet = GraNet(UPDATES, Constant(0.5))
    assert granet.due(4) and not granet.due(0) and not granet.due(5)
    (change,) = granet.update([x], 4)
    assert ones(change.mask) == [0, 7]  # of 0 and 6 the smaller makes room for 7


def test_all_weights_together_are_pruned_by_size() -> None:
    """Six of eight weights' room is the total of both targets at the end: the layer of large weights keeps its four."""
    small = layer([0.1, 0.2, 0.3, 0.4], [1] * 4, [0.0] * 4, target=2)
    large = layer([1.1, 1.2, 1.3, 1.4], [1] * 4, [0.0] * 4, target=3)
    changes = GraNet(UPDATES, Constant(0.0), scope="global").update([small, large], 4)
    assert [ones(x.mask) for x in changes] == [[3], [0, 1, 2, 3]]
    changes = GraNet(UPDATES, Constant(0.0)).update([small, large], 4)
    assert [ones(x.mask) for x in changes] == [[2, 3], [1, 2, 3]]


@pytest.mark.parametrize(("step", "left"), [(10, 269), (20, 150), (30, 107), (40, 100)])
def test_the_counts_follow_the_cubic_from_where_training_begins(step: int, left: int) -> None:
    """1 - s_f + (s_f - s_i)·(1 - p)³ with s_i = .5 and s_f = .9 of 1000: 100 + 400·(.75³, .5³, .25³, 0), in whole weights."""
    granet = GraNet(Updates(end=40, interval=10), Constant(0.0), initial=0.5)
    x = layer([float(i + 1) for i in range(1000)], [0] * 500 + [1] * 500, [0.0] * 1000, target=100)
    (change,) = granet.update([x], step)
    assert ones(change.mask) == list(range(1000 - left, 1000))


def test_training_begins_with_the_plans_distribution_at_another_sparsity() -> None:
    """Half of 150 weights: 15 of 40 would be 15·75/21 = 53.6, so all 40 are there, and 35 are left for 5 and 1 of 6."""
    assert GraNet(initial=0.5).opened([40, 100, 10], [15, 5, 1], [1, 1, 1]) == [40, 30, 6]
    assert GraNet(initial=0.9).opened([40, 100, 10], [15, 5, 1], [1, 1, 1]) == [
        15,
        5,
        1,
    ]  # never below the plan's
    assert GraNet(initial=0.5).opened([4, 4], [4, 0], [1, 1]) == [4, 0]
    assert GraNet().opened([40, 100], [1, 2], [1, 1]) == [40, 100]
    # rows of 10×1000 and 1000×10: half of 20 000 weights are ten times the 1 000 and the 5 000/6 000 of the plan's
    opened = GraNet(initial=0.5).opened([1000, 10], [100, 5], [10, 1000])
    assert 10 * opened[0] + 1000 * opened[1] == 10_670  # 1000 rows are rounded up


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def trained(algorithm: Algorithm, steps: int) -> tuple[nn.Module, Masking]:
    spec = ift.read_model(perceptron(), "1x16")
    plan = ift.plan(spec, None, "3/4", scope="matrices", keep_dense=(), distribution="erk")
    model = apply(plan, perceptron(), dense_start=True)
    masks = Masking(model, optim.SGD(model.parameters(), 0.1, momentum=0.9), algorithm)
    torch.manual_seed(1)
    for _ in range(steps):
        masks.optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        masks.step()
        masks.optimizer.step()
    return model, masks


def test_without_regeneration_it_is_gradual_pruning_to_the_bit() -> None:
    updates = Updates(end=20, interval=4)
    one, masks = trained(GraNet(updates, Constant(0.0)), 25)
    other, _ = trained(Gradual(updates), 25)
    assert masks.exploration.updates == 5
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    another, _ = trained(GraNet(updates), 25)
    assert not all(map(torch.equal, one.state_dict().values(), another.state_dict().values()))


def test_sparse_to_sparse_training_begins_with_weights_around_the_plans() -> None:
    spec = ift.read_model(perceptron(), "1x16")
    plan = ift.plan(spec, None, "3/4", scope="matrices", keep_dense=(), distribution="erk")
    drawn = {w.name: w.mask.clone() for w in masked_weights(apply(plan, perceptron()))}
    _, masks = trained(GraNet(Updates(end=20, interval=4), initial=0.5), 0)
    assert masks.density == pytest.approx(0.5, abs=0.01)
    assert all(bool((masks.masks()[name] | ~mask).all()) for name, mask in drawn.items())
    _, masks = trained(GraNet(Updates(end=20, interval=4), initial=0.5), 25)
    assert dict(masks.nnz) == {x.weight: x.nnz for x in plan.layers if x.maskable}


@pytest.mark.parametrize("wrong", [{"scope": "all"}, {"initial": 1.0}, {"initial": -0.1}])
def test_what_cannot_be_is_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(ift.InputError):
        GraNet(**wrong)  # type: ignore[arg-type]


def test_counts_do_not_move_between_layers_of_a_structure() -> None:
    model = sparsify(perceptron(), 0.5, structure="2:4", dense_start=True)
    with pytest.raises(ift.InputError, match="GraNet over all layers moves weights between rows"):
        Masking(model, optim.SGD(model.parameters(), 0.1), GraNet(UPDATES, scope="global"))


def test_a_weight_without_a_gradient_is_only_pruned() -> None:
    network = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    network = sparsify(network, "1/2", keep_dense="none", dense_start=True)
    network[1].weight.requires_grad_(False)
    optimizer = optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    masks = Masking(network, optimizer, GraNet(Updates(end=5, interval=1)))
    for _ in range(7):
        network(torch.randn(4, 16)).sum().backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
    assert {name: int(mask.sum()) for name, mask in masks.masks().items()} == {
        "0.weight": 128,
        "1.weight": 128,
    }
    assert network[1].weight.count_nonzero() == 128
