"""Top-KAST by hand: what is computed with, what is trained beside it, the penalty, and its two ends."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn, optim

import iftplan as ift
from iftplan.masks import Unstructured
from iftplan.nn import STE, Masking, TopKAST, apply, masked_weights, step_macs, weights_by_layer
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masks.masked_weights import MaskedWeight, register_mask_
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost


class Row(nn.Module):
    """One row of weights, of which two are computed with."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([values]))
        mask = torch.arange(len(values)).view(1, -1) < 2
        register_mask_(MaskedWeight("weight", self, "weight"), mask, Unstructured())


def stepped(row: Row, masks: Masking) -> tuple[list[float], list[float]]:
    """The weight that is computed with, and θ, after a step whose gradients are all 1."""
    row.weight.grad = torch.ones_like(row.weight)
    masks.step()
    masks.optimizer.step()
    dense = masks.state_dict()["latent"]["dense"]["weight"]
    return rounded(row.weight), rounded(dense)


def rounded(values: torch.Tensor) -> list[float]:
    return [round(x, 6) for x in values[0].tolist()]


DENSE = [4.0, -3.0, 2.0, 1.0, 0.5]


def test_two_steps_by_hand() -> None:
    """D = 2/5 and M = 1/5, so B has three weights; gradients are 1 + .1·θ on A and 1 + .1·θ/.4 on the third."""
    row = Row(DENSE)
    masks = Masking(row, optim.SGD(row.parameters(), lr=1.0), TopKAST(0.2, pull=0.1, refresh=1))
    assert rounded(row.weight) == [4, -3, 0, 0, 0]
    # 4 - 1.4, -3 - .7, 2 - 1.5; then the third largest is 1
    assert stepped(row, masks) == ([2.6, -3.7, 0, 0, 0], [2.6, -3.7, 0.5, 1, 0.5])
    assert masks.taken.reached == {"weight": 3} and not masks.taken.dense_gradient
    # 2.6 - 1.26, -3.7 - .63, and 1 - 1.25 beside them
    assert stepped(row, masks) == ([1.34, -4.33, 0, 0, 0], [1.34, -4.33, 0.5, -0.25, 0.5])


def test_a_weight_that_learns_unseen_comes_in_when_it_is_large() -> None:
    row = Row([4.0, -3.0, -2.9, 1.0, 0.5])
    masks = Masking(row, optim.SGD(row.parameters(), lr=1.0), TopKAST(0.2, pull=0.0, refresh=2))
    assert stepped(row, masks)[0] == [3, -4, 0, 0, 0]  # -3.9 already, but the choice lasts two steps
    assert stepped(row, masks)[0] == [0, -5, -4.9, 0, 0]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(optim.AdamW, {"lr": 0.1}), (optim.SGD, {"lr": 0.01, "momentum": 0.9}), (optim.Adam, {"lr": 0.1})],
)
def test_what_is_outside_has_no_momentum_and_does_not_decay(optimizer: Any, options: Any) -> None:
    """Whether the optimizer decays weights by themselves, or by their gradients."""
    row = Row(DENSE)
    masks = Masking(row, optimizer(row.parameters(), weight_decay=0.5, **options), TopKAST(0.2, refresh=1))
    for _ in range(3):
        assert stepped(row, masks)[1][3:] == [1.0, 0.5]
    slots = [x for x in masks.optimizer.state[row.weight].values() if x.shape == (1, 5)]
    assert slots
    for slot in slots:
        assert slot[0].bool().tolist() == [True, True, True, False, False]


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


def planned(mask: str = "unstructured") -> Plan:
    spec = ift.read_model(perceptron(), "1x16")
    return ift.plan(spec, None, "3/4", scope="matrices", keep_dense=("last",), mask=mask)


def trained(algorithm: Algorithm, mask: str = "unstructured", steps: int = 25) -> tuple[nn.Module, Masking]:
    model = apply(planned(mask), perceptron(), dense_start=True)
    masks = Masking(model, optim.SGD(model.parameters(), 0.1, momentum=0.9), algorithm, structure=mask)
    torch.manual_seed(1)
    for _ in range(steps):
        masks.optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        masks.step()
        masks.optimizer.step()
    return model, masks


@pytest.mark.parametrize("mask", ["unstructured", "2:8"])
def test_where_everything_is_trained_it_is_straight_through_estimation_to_the_bit(mask: str) -> None:
    one, masks = trained(TopKAST(1.0, pull=0.0, refresh=4), mask)
    other, straight = trained(STE(refresh=4), mask)
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    _, fewer = trained(TopKAST(0.3, pull=0.0, refresh=4), mask)
    dense, same, different = (x.state_dict()["latent"]["dense"] for x in (straight, masks, fewer))
    assert all(torch.equal(same[name], value) for name, value in dense.items())
    assert not any(torch.equal(different[name], value) for name, value in dense.items())


def test_without_a_margin_only_what_is_computed_with_is_trained() -> None:
    before = {w.name: w.parameter.detach().clone() for w in masked_weights(apply(planned(), perceptron(), dense_start=True))}  # fmt: skip
    _, masks = trained(TopKAST(0.0, refresh=1000))
    latent = masks.state_dict()["latent"]
    for name, start in before.items():
        off = ~latent["chosen"][name]
        assert torch.equal(latent["dense"][name][off], start[off])
        assert not torch.equal(latent["dense"][name], start)


def test_the_ledger_charges_gradients_by_the_margin() -> None:
    """2·f_S + f_B: a forward pass and input gradients by D, gradients of weights by D + M (section 2 of the paper)."""
    plan = planned()
    model, masks = trained(TopKAST(0.25))
    cost, groups = TrainingCost.of(plan), weights_by_layer(plan, model)
    masked = cost.opened - cost.fixed
    assert cost.forward() - cost.fixed == Fraction(masked, 4)
    step = 3 * cost.fixed + masked * (Fraction(2, 4) + Fraction(2, 4))
    assert step_macs(cost, groups, masks.taken, 8) == 8 * step
    assert cost.step(reached=cost.around(0.25)) == step
    assert cost.around(1.0) == cost.capacity and cost.around(0.0) == cost.nnz


@pytest.mark.parametrize("margin", [-0.1, 1.1])
def test_a_margin_is_a_part(margin: float) -> None:
    with pytest.raises(ift.InputError, match="a margin is a part of all weights"):
        TopKAST(margin)
