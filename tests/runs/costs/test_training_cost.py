"""What training costs: published multipliers, closed forms of every algorithm, and what a run says of its steps."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.utils.flop_counter import FlopCounterMode

import iftplan as ift
from iftplan.nn import (
    MEST,
    SET,
    Force,
    Gradual,
    GraNet,
    GraSP,
    Masking,
    Order,
    RigL,
    Saliency,
    Static,
    SynFlow,
    apply,
    layer_counts,
    masked_weights,
    step_macs,
    weights_by_layer,
)
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.plans.plan import Plan, Scope
from iftplan.runs.costs.training_cost import TrainingCost, rigl_average
from iftplan.runs.schedules import Constant, Cubic, Updates
from tests.support.models.widths import MODELS


@cache
def resnet50(distribution: str, keep_dense: tuple[str, ...]) -> TrainingCost:
    spec = ift.read_model("zoo:resnet50", widths=False)
    return TrainingCost.of(ift.plan(spec, None, "0.8", distribution=distribution, keep_dense=keep_dense))


@pytest.mark.parametrize(
    ("distribution", "keep_dense", "multiplier"),
    [("erk", (), "0.4157"), ("uniform", ("first",), "0.2257")],
)
def test_rigl_on_resnet50_costs_what_was_published(
    distribution: str, keep_dense: tuple[str, ...], multiplier: str
) -> None:
    """s = .8, ΔT = 100, relative to dense training (arXiv 1911.11134, table 2 and appendix G)."""
    cost = resnet50(distribution, keep_dense)
    average = rigl_average(Fraction(cost.forward()), Fraction(cost.opened), 100)
    assert round(average / cost.dense_step, 4) == Fraction(multiplier)
    # the same, step by step: a hundred sparse steps and one that looks at the dense gradient
    run = 100 * cost.step() + cost.step(dense_gradient=True)
    assert Fraction(run, 101) == average


def test_with_every_weight_a_plain_plan_costs_what_dense_training_does() -> None:
    cost = resnet50("erk", ())
    assert cost.opened == cost.dense == 4_089_184_256
    assert cost.step(cost.capacity) == cost.step(cost.capacity, dense_gradient=True) == cost.dense_step


class Tied(nn.Module):
    """A layer that is used twice, and another with its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 12)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(self.a(x).relu()).relu()).relu())


class Attending(nn.Module):
    """Weights whose modules lie inside one another: attention's own, and its output's."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.c = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        return self.c(self.attention(x, x, x, need_weights=False)[0].squeeze(1))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 12))


HOSTS = {"plain": plain, "tied": Tied, "attending": Attending}


def built(
    host: str, family: str | None, algorithm: Algorithm, sparsity: str = "1/2"
) -> tuple[Plan, nn.Module, Masking, optim.Optimizer]:
    torch.manual_seed(0)
    model = HOSTS[host]().eval()
    spec = ift.read_model(model, "1x16", widths=family == "wide")
    plan = ift.plan(spec, family, sparsity, scope="matrices", keep_dense=("last",))
    network = apply(plan, model, dense_start=algorithm.starts_dense).train()
    optimizer = optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    return plan, network, Masking(network, optimizer, algorithm), optimizer


def costs(
    host: str, family: str | None, algorithm: Algorithm, steps: int, poisoned: tuple[int, ...] = ()
) -> tuple[TrainingCost, list[int]]:
    """The cost of every step of a real run, entered as a loop would."""
    plan, network, masks, optimizer = built(host, family, algorithm)
    cost, groups = TrainingCost.of(plan), weights_by_layer(plan, network)
    entered = []
    for step in range(steps):
        optimizer.zero_grad()
        network(torch.randn(8, 16)).square().mean().backward(create_graph=masks.wants_graph)
        if step in poisoned:
            next(masked_weights(network)).parameter.grad[0] = torch.inf
        masks.step()
        if step not in poisoned:
            optimizer.step()
        entered.append(step_macs(cost, groups, masks.taken, 1))
    return cost, entered


FAMILIES = (None, "wide", "parallel", "factorized", "doped")


# attention computes with its weights itself: only families that leave modules what they are can mask them
@pytest.mark.parametrize(
    ("host", "family"),
    [
        *((h, f) for h in ("plain", "tied") for f in FAMILIES),
        ("attending", None),
        ("attending", "wide"),
    ],
)
def test_counts_of_parameters_add_up_to_those_of_the_plan(host: str, family: str | None) -> None:
    plan, network, masks, _ = built(host, family, Static())
    groups = weights_by_layer(plan, network)
    counts = layer_counts(groups, masks.nnz)
    assert counts == {x.name: x.nnz for x in plan.layers if x.maskable}
    assert sorted(n for names in groups.values() for n in names) == sorted(masks.nnz)
    assert TrainingCost.of(plan).forward(counts) == plan.macs(Scope.MODEL)
    assert len(counts) >= (1 if host == "tied" else 2)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("family", [None, "parallel", "doped"])
def test_rigl_pays_for_the_dense_gradient_when_it_looks_at_it(family: str | None, order: Order) -> None:
    algorithm = RigL(Updates(end=40, interval=10), order=order)
    cost, steps = costs("plain", family, algorithm, 60)
    sparse, dense = 3 * cost.forward(), 2 * cost.forward() + cost.opened
    assert dense > sparse
    assert [t for t, macs in enumerate(steps) if macs == dense] == [10, 20, 30]
    assert steps.count(sparse) == 57
    # over whole intervals that is the published average: (3·f_S·ΔT + 2·f_S + f_D)/(ΔT + 1), with ΔT = 9 steps between
    average = rigl_average(Fraction(cost.forward()), Fraction(cost.opened), 9)
    assert sum(steps[1:31]) == 30 * average


def test_an_update_that_is_postponed_is_paid_for_when_it_happens() -> None:
    cost, steps = costs("plain", None, RigL(Updates(end=40, interval=10)), 30, poisoned=(10, 11, 20))
    dense = 2 * cost.forward() + cost.opened
    assert [t for t, macs in enumerate(steps) if macs == dense] == [12, 21]


@pytest.mark.parametrize(
    "algorithm", [Static(), SET(Updates(end=40, interval=10)), MEST(Updates(end=40, interval=10))]
)
def test_static_and_set_never_look_at_it(algorithm: Algorithm) -> None:
    cost, steps = costs("plain", None, algorithm, 30)
    assert set(steps) == {3 * cost.forward()}


@pytest.mark.parametrize("host", HOSTS)
def test_gradual_pruning_costs_the_mean_of_what_is_left(host: str) -> None:
    """mean over t of 3·f_D·(1 - s_t), where every layer is masked and s_t falls at the updates."""
    updates = Updates(end=40, interval=10)
    cost, steps = costs(host, None, Gradual(updates), 60)
    kept = [1.0 - Cubic(0, 0.5).at((max(0, t - 1) // 10 * 10) / 40) for t in range(60)]
    masked = cost.opened - cost.fixed
    for macs, density in zip(steps, kept, strict=True):
        # whole weights: at most one more for each masked weight and position
        assert 0 <= macs - 3 * (cost.fixed + density * masked) <= 3 * sum(cost.positions.values())
    assert steps[0] == steps[10] == 3 * cost.opened
    assert set(steps[41:]) == {3 * cost.forward()}


def test_granet_pays_for_what_is_left_and_for_the_dense_gradient_at_its_updates() -> None:
    """2·f + f_D at an update and 3·f else, f of the weights that the last update left."""
    updates = Updates(end=40, interval=10)
    cost, steps = costs("plain", None, GraNet(updates), 60)
    _, pruned = costs("plain", None, Gradual(updates), 60)
    forward = [macs // 3 for macs in pruned]
    assert steps == [2 * f + (cost.opened if t in (10, 20, 30, 40) else f) for t, f in enumerate(forward)]


def test_a_soft_bound_pays_for_the_weights_beyond_the_plans() -> None:
    """Between updates a layer of n has n + ⌊n·f⌋; the last update, at the end of the schedule, leaves n."""
    cost, steps = costs("plain", None, MEST(Updates(end=40, interval=10), Constant(0.25), soft=True), 60)
    more = cost.forward({x: n + n // 4 for x, n in cost.nnz.items()})
    assert steps == [3 * (more if 10 < t <= 40 else cost.forward()) for t in range(60)]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_batch_that_chooses_by_saliency_is_a_dense_one(scope: Any) -> None:
    cost, steps = costs("plain", None, Saliency(scope), 5)
    assert steps[0] == 3 * cost.opened
    assert len(set(steps[1:])) == 1
    if scope == "layer":
        assert steps[1] == 3 * cost.forward()


def left(cost: TrainingCost, done: int, rounds: int) -> int:
    """f after a round: n·(k/n)^(t/T) of a layer's n weights, k in the end, in whole weights."""
    counts = {x: ceil(n * (cost.nnz[x] / n) ** (done / rounds) - 1e-9) for x, n in cost.capacity.items()}
    return cost.forward(counts)


@pytest.mark.parametrize("regrow", [True, False])
def test_force_pays_for_what_may_come_back(regrow: bool) -> None:
    """Round t has the weights that the last one left; where pruned ones may return, the gradients of all."""
    cost, steps = costs("plain", None, Force(rounds=4, regrow=regrow), 8)
    kept = [left(cost, t, 4) for t in range(5)]
    assert kept[0] == cost.opened and kept[4] == cost.forward()
    assert steps[:4] == [2 * f + (cost.opened if regrow else f) for f in kept[:4]]
    assert set(steps[4:]) == {3 * cost.forward()}


def test_synflow_pays_for_the_batch_and_for_a_sample_in_every_round() -> None:
    """The rounds have no batch: each costs one sample's step with the weights of its time, once."""
    cost, steps = costs("plain", None, SynFlow(rounds=6), 4)
    assert steps[0] == 3 * cost.opened + 3 * sum(left(cost, t, 6) for t in range(6))
    assert set(steps[1:]) == {3 * cost.forward()}


def test_grasp_pays_for_a_second_backward_pass() -> None:
    cost, steps = costs("plain", None, GraSP(), 4)
    assert steps == [9 * cost.opened] + [3 * cost.forward()] * 3


def test_a_second_backward_pass_has_two_products_for_each_of_a_step() -> None:
    """Torch's own counter on three layers and their input, whose gradient counts by convention."""
    x, *weights = (torch.ones(8 if i == 0 else 16, 16, requires_grad=True) for i in range(4))
    with FlopCounterMode(display=False) as counter:
        loss = (x @ weights[0] @ weights[1] @ weights[2]).square().sum()
        gradients = torch.autograd.grad(loss, [x, *weights], create_graph=True)
        squared = torch.stack([(g * g.detach()).sum() for g in gradients]).sum()
        torch.autograd.grad(squared, [x, *weights])
    assert counter.get_total_flops() == 2 * 9 * (3 * 16 * 16) * 8


def test_what_global_saliency_keeps_is_counted_where_it_is() -> None:
    _, network, masks, optimizer = built("plain", None, Saliency("global"))
    network(torch.randn(8, 16)).square().mean().backward()
    masks.step()
    before = dict(masks.nnz)
    optimizer.step()
    assert sum(masks.nnz.values()) * 2 == sum(before.values())
    assert masks.nnz == {w.name: int(w.mask.sum()) for w in masked_weights(network)}
    assert masks.taken.nnz == before  # what the step computed with


def test_tied_matrices_of_a_language_model_are_counted_once() -> None:
    make, inputs = MODELS["GPT-2"]
    model = make().eval()
    plan = ift.plan(ift.read_model(model, *map(str, inputs), widths=False), None, "1/2")
    network = apply(plan, model)
    groups = weights_by_layer(plan, network)
    counts = layer_counts(groups, Masking(network, optim.SGD(network.parameters(), 0.1)).nnz)
    assert counts == TrainingCost.of(plan).nnz
