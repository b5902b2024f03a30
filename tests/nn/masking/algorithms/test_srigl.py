"""SRigL by hand: what is salient, who is ablated, who comes back, and one fan-in for all that are left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn, optim

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.nn import Masking, RigL, SRigL, Static, apply, masked_weights, sparsify
from iftplan.nn.masking.algorithms.exchange.srigl import structured_drop_grow
from iftplan.nn.masking.layer import Change, Layer
from iftplan.runs.schedules import Constant, Updates

ALWAYS = Updates(end=10**6, interval=1)


def layer(
    magnitude: list[list[float]], mask: list[list[int]], gradient: list[list[float]], fan_in: int
) -> Layer:
    kept = torch.tensor(mask).bool()
    weights = torch.tensor(magnitude) * kept
    return Layer("weight", weights, torch.tensor(gradient), None, kept, fan_in, Generator().manual_seed(0))


def ones(change: Change) -> list[list[int]]:
    return change.mask.int().tolist()


# Three neurons of four inputs and fan-in two, six weights. A third is dropped, two: .1 and .2, both the second
# neuron's. Of the inactive |g| the two largest are .9 and .8, both the third's.
WEIGHTS = [[0.9, 0.8, 0.0, 0.0], [0.1, 0.2, 0.0, 0.0], [0.7, 0.6, 0.0, 0.0]]
MASK = [[1, 1, 0, 0]] * 3
GRADIENT = [[5.0, 5.0, 0.1, 0.2], [0.05, 0.4, 0.3, 0.0], [5.0, 5.0, 0.9, 0.8]]


def changed(fraction: float = 1 / 3, ablation: float = 0.3, **given_: Any) -> Change:
    values: dict[str, Any] = {"magnitude": WEIGHTS, "mask": MASK, "gradient": GRADIENT, "fan_in": 2} | given_
    return structured_drop_grow(layer(**values), fraction, ablation)


def test_a_neuron_without_salient_weights_is_ablated_and_the_others_share_its_weights() -> None:
    # salient: two, none, four, and max(1, ⌊.3·2⌋) = 1 is needed; k' = ⌊6/2⌋ = 3, and each of the two grows one
    assert ones(changed()) == [[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert changed().grown.int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_without_ablation_a_neuron_regrows_what_it_lost() -> None:
    # .4 was dropped a moment ago and comes back, .3 grows
    assert ones(changed(ablation=0.0)) == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("ablation", "alive"),
    [(0.3, [1, 0, 1]), (1.0, [1, 0, 1]), (0.99, [1, 0, 1])],  # one, two and ⌊1.98⌋ = 1 of two
)
def test_how_many_salient_weights_a_neuron_needs(ablation: float, alive: list[int]) -> None:
    assert [int(any(row)) for row in ones(changed(ablation=ablation))] == alive


def test_a_gradient_makes_a_neuron_salient_too() -> None:
    # the second neuron's .95 is now among the two largest of what is inactive: one salient weight is enough
    gradient = [GRADIENT[0], [0.05, 0.4, 0.95, 0.0], GRADIENT[2]]
    assert ones(changed(gradient=gradient)) == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]
    # and two are needed under γ = 1
    assert ones(changed(gradient=gradient, ablation=1.0))[1] == [0, 0, 0, 0]


def test_gradients_of_active_weights_make_nobody_salient() -> None:
    gradient = [GRADIENT[0], [9.0, 9.0, 0.3, 0.0], GRADIENT[2]]
    assert ones(changed(gradient=gradient))[1] == [0, 0, 0, 0]


def test_an_ablated_neuron_may_come_back() -> None:
    # two neurons have three weights each; |g| of the third's are the largest, and ⌊6/3⌋ = 2 for all again
    weights = [[0.9, 0.8, 0.1, 0.0], [0.7, 0.6, 0.2, 0.0], [0.0] * 4]
    gradient = [[0.0, 0, 0, 0.1], [0.0, 0, 0, 0.1], [0.0, 9.0, 8.0, 0.0]]
    mask = [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    found = changed(magnitude=weights, mask=mask, gradient=gradient)
    assert ones(found) == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]]


def test_a_neuron_that_has_to_lose_weights_keeps_its_largest() -> None:
    """Seen: a boolean mask is sorted in the place of magnitudes, and the first weights stay."""
    weights = [[0.7, 0.8, 0.9, 0.0], [0.6, 0.65, 0.68, 0.0], [0.0] * 4]
    gradient = [[0.0] * 4, [0.0] * 4, [9.0, 8.0, 0.0, 0.0]]
    mask = [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    # a third drops .6 and .65, and the first neuron is left with three where two are allowed
    found = changed(magnitude=weights, mask=mask, gradient=gradient)
    assert ones(found)[0] == [0, 1, 1, 0]
    kept = torch.tensor(mask[0]).bool()
    assert kept.sort(descending=True, stable=True).indices[:2].tolist() == [0, 1]  # what was seen


def test_no_neuron_has_more_inputs_than_there_are() -> None:
    # half of six are dropped, .1, .2 and .3; salient beside .9, .8 and .4 are 9, 8 and .5: four, one and one of two
    gradient = [[0.0, 0.0, 9.0, 8.0], [0.0, 0.0, 0.5, 0.0], [0.0] * 4]
    weights = [[0.9, 0.8, 0.0, 0.0], [0.1, 0.2, 0.0, 0.0], [0.3, 0.4, 0.0, 0.0]]
    found = changed(0.5, 1.0, magnitude=weights, gradient=gradient)
    assert ones(found) == [[1, 1, 1, 1], [0] * 4, [0] * 4]  # of six weights it can take four


def test_where_nobody_is_salient_enough_nobody_is_ablated() -> None:
    found = changed(fraction=0.0, ablation=1.0, mask=[[0] * 4] * 3)
    assert ones(found) == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]  # by |g| alone


cells = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0]), min_size=24, max_size=24)


@given(cells, cells, st.integers(0, 6), st.floats(0, 1), st.floats(0, 1))
def test_what_always_holds(
    magnitude: list[float], gradient: list[float], fan_in: int, fraction: float, ablation: float
) -> None:
    mask = torch.zeros(4, 6, dtype=torch.bool)
    for row in range(4):
        mask[row, torch.randperm(6, generator=Generator().manual_seed(row))[:fan_in]] = True
    weights = torch.tensor(magnitude).view(4, 6) * mask
    x = Layer("w", weights, torch.tensor(gradient).view(4, 6), None, mask, fan_in, Generator())
    change = structured_drop_grow(x, fraction, ablation)
    counts = change.mask.sum(1)
    alive = int((counts > 0).sum())
    assert len({int(n) for n in counts if n}) <= 1
    assert int(counts.max()) == (min(6, 4 * fan_in // alive) if alive else 0)
    assert not (change.grown & ~change.mask).any()


# --- in training -------------------------------------------------------------------------------------------


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 6))


def trained(algorithm: SRigL, steps: int = 40) -> tuple[nn.Module, Masking]:
    plan = ift.plan(
        ift.read_model(perceptron(), "1x16"), None, "3/4", scope="matrices", keep_dense=(), mask="fan-in"
    )
    model = apply(plan, perceptron())
    masks = Masking(model, optim.SGD(model.parameters(), 0.1, momentum=0.9), algorithm, structure=plan.mask)
    draw = Generator().manual_seed(0)
    for _ in range(steps):
        x = torch.randn(8, 16, generator=draw)
        masks.optimizer.zero_grad()
        (model(x) - x[:, :6]).square().mean().backward()
        masks.step()
        masks.optimizer.step()
    return model, masks


def neurons(mask: Tensor) -> list[int]:
    return mask.sum(1).tolist()


def test_counts_follow_from_the_neurons_that_are_left() -> None:
    model, masks = trained(SRigL(ALWAYS, Constant(0.5), ablation=1.0))
    for weight, planned in zip(masked_weights(model), (24 * 4, 24 * 6, 6 * 6), strict=True):
        counts = [n for n in neurons(weight.mask) if n]
        assert set(counts) == {min(weight.mask.shape[1], planned // len(counts))}
        assert not weight.parameter[~weight.mask].any()
        assert not masks.optimizer.state[weight.parameter]["momentum_buffer"][~weight.mask].any()
    assert 0 in neurons(model[0].weight_mask)
    assert 0 not in neurons(model[4].weight_mask)  # the last layer, a classifier


def test_who_is_exempt_can_be_said() -> None:
    model, _ = trained(SRigL(ALWAYS, Constant(0.5), ablation=1.0, exempt=("0.weight", "4.weight")))
    assert 0 not in neurons(model[0].weight_mask)
    assert 0 in neurons(model[2].weight_mask)


def test_masks_with_ablated_neurons_can_be_trained_on() -> None:
    model, masks = trained(SRigL(ALWAYS, Constant(0.5), ablation=1.0))
    masks.release()
    before = {name: neurons(mask) for name, mask in masks.masks().items()}
    for algorithm in (Static(), RigL(ALWAYS, Constant(0.3)), SRigL(ALWAYS)):
        again = Masking(model, optim.SGD(model.parameters(), 0.1), algorithm, structure="fan-in")
        model(torch.randn(4, 16)).square().mean().backward()
        again.step()
        again.optimizer.step()
        if not isinstance(algorithm, SRigL):
            assert {name: neurons(mask) for name, mask in again.masks().items()} == before
        again.release()


@pytest.mark.parametrize("structure", ["unstructured", "2:4", "block2x2"])
def test_other_structures_are_refused(structure: str) -> None:
    plan = ift.plan(ift.read_model(perceptron(), "1x16"), None, "1/2", scope="matrices", mask=structure)
    model = apply(plan, perceptron())
    with pytest.raises(InputError, match=r"take RigL for these, or plan with the structure fan-in"):
        Masking(model, optim.SGD(model.parameters(), 0.1), SRigL(ALWAYS), structure=plan.mask)


@pytest.mark.parametrize("frozen", [(), ("4",)])
def test_the_last_layer_is_spared_whether_it_takes_part_or_not(frozen: tuple[str, ...]) -> None:
    """A frozen classifier leaves the hidden layers to be ablated as before."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24))
    model = sparsify(network, "3/4", structure="fan-in", keep_dense="none")
    optimizer = optim.SGD(model.parameters(), 0.1)
    masks = Masking(model, optimizer, SRigL(Updates(end=50, interval=1), ablation=0.9), frozen=frozen)
    for _ in range(12):
        model(torch.randn(8, 16)).square().sum().mul(1e-3).backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
    alive = {name: int(mask.any(1).sum()) for name, mask in masks.masks().items()}
    assert alive["4.weight"] == 24
    assert alive["2.weight"] < 24, "the layer before it is no last one"
