"""Sparse momentum by hand: averages of dense gradients, what grows by them, and freed MACs that change the layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim

import iftplan as ift
from iftplan.masks import Unstructured
from iftplan.nn import (
    MEST,
    SET,
    SNFS,
    Masking,
    RigL,
    apply,
    masked_weights,
    sparsify,
    step_macs,
    weights_by_layer,
)
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masking.algorithms.exchange.redistribution import merit, redistributed, spend
from iftplan.nn.masks.masked_weights import MaskedWeight, register_mask_
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.schedules import Constant, Updates
from tests.support.models.hand_layers import layer, ones


class Row(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.9, 0.5, 0.1, 0.0, 0.0, 0.0]]))
        mask = torch.tensor([[True, True, True, False, False, False]])
        register_mask_(MaskedWeight("weight", self, "weight"), mask, Unstructured())


#             0    1    2    3     4    5
GRADIENTS = [[0.0, 0.0, 0.0, 4.0, 3.0, 0.0], [0.0, 0.0, 0.0, -4.0, 3.0, 1.0]]


def averaged(masks: Masking) -> list[float]:
    return masks.state_dict()["latent"]["averages"]["weight"][0].tolist()


@pytest.mark.parametrize(("algorithm", "grown"), [(SNFS, 4), (RigL, 3)])
def test_what_grows_has_the_largest_average(algorithm: Any, grown: int) -> None:
    """m = g/2 and then m/2 + g/2: 3 has 2 and then -1, 4 has 1.5 and then 2.25; the last gradient of 3 is larger."""
    row = Row()
    options = {"smoothing": 0.5, "redistribution": "none"} if algorithm is SNFS else {}
    chosen = algorithm(Updates(end=4, interval=1), Constant(0.34), **options)
    masks = Masking(row, optim.SGD(row.parameters(), lr=0.0), chosen)
    for gradient in GRADIENTS:
        row.weight.grad = torch.tensor([gradient])
        masks.step()
        masks.optimizer.step()
    if algorithm is SNFS:
        assert averaged(masks) == [0, 0, 0, -1, 2.25, 0.5]
    assert next(masked_weights(row)).mask[0].nonzero().flatten().tolist() == [0, 1, grown]


def test_an_average_is_kept_from_what_is_not_finite() -> None:
    row = Row()
    masks = Masking(row, optim.SGD(row.parameters(), lr=0.0), SNFS(Updates(end=9, interval=8), smoothing=0.5))
    for gradient in (GRADIENTS[0], [torch.inf] * 6, [torch.nan] * 6):
        row.weight.grad = torch.tensor([gradient])
        masks.step()
    assert averaged(masks) == [0, 0, 0, 2, 1.5, 0]


def test_averages_are_forgotten_when_masks_no_longer_change() -> None:
    row = Row()
    masks = Masking(row, optim.SGD(row.parameters(), lr=0.0), SNFS(Updates(end=3, interval=1)))
    dense = []
    for _ in range(5):
        row.weight.grad = torch.tensor([GRADIENTS[0]])
        dense.append(masks.wants_dense_gradient)
        masks.step()
        assert masks.taken.dense_gradient == dense[-1]
        masks.optimizer.step()
    assert dense == [True, True, True, False, False]
    assert masks.state_dict()["latent"] is None


# --- redistribution --------------------------------------------------------------------------------------

FIRST = replace(layer([1.0] * 4 + [0.0] * 6, [1] * 4 + [0] * 6, [0.5] * 10), cost=4)
SECOND = layer([4.0] * 4 + [0.0] * 16, [1] * 4 + [0] * 16, [0.5] * 20)


def test_freed_macs_go_where_weights_are_large_by_hand() -> None:
    """Both drop two of four: 2·4 + 2·1 = 10 MACs pay for weights in 1:4, λ = 10/(1·4 + 4·1): 1, 5, and 1 is left."""
    growth = [torch.ones(1, 10), torch.ones(1, 20)]
    one, other = redistributed([FIRST, SECOND], growth, 0.5, "magnitude", regrow=False)
    assert (ones(one.mask), ones(one.grown)) == ([0, 1, 4], [4])
    assert ones(other.grown) == list(range(4, 10))
    assert 4 * 3 + 8 == 4 * 4 + 4  # as before


def test_what_shares_are_in_proportion_to() -> None:
    x = layer([2.0, 4.0, 0.0, 9.0], [1, 1, 1, 0], [1.0, 3.0, 5.0, 100.0])
    assert (merit(x, "magnitude"), merit(x, "momentum"), merit(x, "nonzeros")) == (2, 3, 3)
    assert merit(layer([2.0], [0], [1.0]), "momentum") == 0


@pytest.mark.parametrize(
    ("pool", "costs", "free", "merits", "counts"),
    [
        (10, [1, 1], [10, 10], [4.0, 1.0], [8, 2]),
        (10, [1, 1], [3, 10], [4.0, 1.0], [3, 7]),  # what is full leaves its share to the other
        (10, [1, 1], [3, 4], [4.0, 1.0], [3, 4]),  # and both may be
        (10, [4, 1], [9, 9], [1.0, 1.0], [2, 2]),
        (12, [4, 1], [9, 9], [1.0, 1.0], [2, 4]),  # 2.4 of each, and what is left buys the cheap
        (10, [4, 3], [9, 9], [1.0, 1.0], [1, 2]),
        (9, [4, 3], [9, 9], [1.0, 0.0], [2, 0]),
        (10, [1, 1], [9, 9], [0.0, 0.0], [5, 5]),
        (-3, [1, 1], [9, 9], [1.0, 1.0], [0, 0]),
        (5, [], [], [], []),
    ],
)
def test_a_pool_is_spent_in_whole_weights(
    pool: int, costs: list[int], free: list[int], merits: list[float], counts: list[int]
) -> None:
    assert spend(pool, costs, free, merits) == counts


@given(
    st.integers(0, 10_000),
    st.lists(
        st.tuples(st.sampled_from([1, 4, 16, 64, 49, 196]), st.integers(0, 50), st.floats(0, 1e6)), min_size=1
    ),
)
def test_never_more_than_there_is_and_less_only_by_what_buys_nothing(
    pool: int, layers: list[tuple[int, int, float]]
) -> None:
    costs, free, merits = (list(x) for x in zip(*layers, strict=True))
    counts = spend(pool, costs, free, merits)
    rest = pool - sum(n * cost for n, cost in zip(counts, costs, strict=True))
    room = [cost for cost, n, most in zip(costs, counts, free, strict=True) if n < most]
    assert rest >= 0
    assert all(0 <= n <= most for n, most in zip(counts, free, strict=True))
    assert not room or rest < min(room)


class Net(nn.Module):
    """A convolution at 16 positions, and linear layers at one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c, self.d = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.d(self.c(self.b(self.a(x).relu()).relu().mean((2, 3))).relu())
        return out


def planned() -> Plan:
    return ift.plan(ift.read_model(Net(), "1x2x4x4"), None, "3/4", scope="matrices", keep_dense=())


def trained(algorithm: Algorithm, steps: int, masks: Masking | None = None) -> Masking:
    if masks is None:
        torch.manual_seed(0)
        model = apply(planned(), Net())
        masks = Masking(model, optim.SGD(model.parameters(), 0.05, momentum=0.9), algorithm)
        torch.manual_seed(1)
    for _ in range(steps):
        masks.optimizer.zero_grad()
        (masks.model(torch.randn(8, 2, 4, 4)) - 1).square().mean().backward()
        masks.step()
        masks.optimizer.step()
    return masks


UPDATES = Updates(end=40, interval=3)
REDISTRIBUTED: Mapping[str, Algorithm] = {
    "SNFS": SNFS(UPDATES),
    "SNFS, magnitude": SNFS(UPDATES, redistribution="magnitude"),
    "RigL, magnitude": RigL(UPDATES, redistribution="magnitude"),
    "RigL, nonzeros": RigL(UPDATES, redistribution="nonzeros"),
    "SET, magnitude": SET(UPDATES, redistribution="magnitude"),
    "MEST, magnitude": MEST(UPDATES, redistribution="magnitude"),
}


@pytest.mark.parametrize("name", REDISTRIBUTED)
def test_the_macs_of_the_plan_are_kept_while_counts_move(name: str) -> None:
    plan = planned()
    masks = trained(REDISTRIBUTED[name], 45)
    cost, groups = TrainingCost.of(plan), weights_by_layer(plan, masks.model)
    assert masks.exploration.updates == 13
    assert dict(masks.nnz) != {x.weight: x.nnz for x in plan.layers if x.maskable}
    short = 3 * cost.forward() - step_macs(cost, groups, masks.taken, 1)
    assert 0 <= short < 3 * 16  # less than the dearest weight
    assert all(n > 0 for n in masks.nnz.values())
    for weight in masked_weights(masks.model):
        assert not weight.parameter[~weight.mask].any()


def test_without_a_plan_the_number_of_weights_is_kept() -> None:
    torch.manual_seed(0)
    model = sparsify(Net(), 0.75, keep_dense=())
    masks = Masking(model, optim.SGD(model.parameters(), 0.05, momentum=0.9), SNFS(UPDATES))
    before = dict(masks.nnz)
    trained(SNFS(UPDATES), 45, masks)
    assert dict(masks.nnz) != before
    assert sum(masks.nnz.values()) == sum(before.values())


def test_sparse_momentum_pays_for_the_dense_gradient_of_every_step() -> None:
    """2·f_S + f_D up to the last change of masks, at step 2 (RigL, arXiv 1911.11134, appendix G), and 3·f_S after."""
    plan = planned()
    masks, cost = trained(SNFS(Updates(end=4, interval=2), redistribution="none"), 0), TrainingCost.of(plan)
    groups, steps = weights_by_layer(plan, masks.model), []
    for _ in range(6):
        trained(SNFS(), 1, masks)
        steps.append(Fraction(step_macs(cost, groups, masks.taken, 1)))
    assert steps == [2 * cost.forward() + cost.opened] * 3 + [3 * cost.forward()] * 3


@pytest.mark.parametrize("stop", [1, 7, 12, 41])
def test_an_interrupted_run_goes_on_to_the_bit(stop: int) -> None:
    whole = trained(SNFS(UPDATES), 44)
    first = trained(SNFS(UPDATES), stop)
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict(), first.state_dict()))
    random = torch.get_rng_state()
    again = trained(SNFS(UPDATES), 0)
    again.model.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    torch.set_rng_state(random)
    trained(SNFS(UPDATES), 44 - stop, again)
    for (name, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RigL(redistribution="momentum"), "RigL keeps no average of gradients"),
        (lambda: SET(redistribution="size"), "there are none, momentum, magnitude, nonzeros"),  # type: ignore[arg-type]
        (lambda: MEST(soft=True, redistribution="magnitude"), "take soft=False, or redistribution none"),
        (lambda: SNFS(smoothing=1.0), r"a number in \[0, 1\)"),
    ],
)
def test_what_cannot_be_is_refused_at_once(make: Any, says: str) -> None:
    with pytest.raises(ift.InputError, match=says):
        make()


def test_layers_of_a_structure_exchange_nothing() -> None:
    model = sparsify(
        nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)), 0.5, structure="2:4"
    )
    with pytest.raises(
        ift.InputError, match="SNFS with redistribution moves weights from layer to layer, which 2:4 masks"
    ):
        Masking(model, optim.SGD(model.parameters(), 0.1), SNFS(UPDATES))
    Masking(model, optim.SGD(model.parameters(), 0.1), SNFS(UPDATES, redistribution="none"))
