"""Recycling of dormant neurons: what changes, to the last weight, and that masks and their counts do not."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, optim

from iftplan import nn
from iftplan.base.errors import InputError
from iftplan.runs.schedules import Updates
from tests.support.training import (
    batches,
    copies,
    counts,
    hold,
    loss_of,
    perceptron,
    rigl,
    same,
    sparse,
    train,
)

DEAD = (1, 5, 30)
INPUTS = next(batches(1))[0]


def kill_(model: torch.nn.Module, name: str = "0") -> None:
    """Make neurons of a layer answer 0, whatever the input, in place: GELU of a large negative number is 0."""
    bias = model.get_submodule(name).bias
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        bias[list(DEAD)] = -1e4


def state(optimizer: optim.Optimizer, parameter: Any) -> list[Tensor]:
    slots = optimizer.state[parameter].values()
    return [x for x in slots if isinstance(x, Tensor) and x.shape == parameter.shape]


UPDATES = Updates(end=1000, interval=3)
ALGORITHMS: dict[str, nn.Algorithm] = {
    "static": nn.Static(),
    "set": nn.SET(UPDATES),
    "rigl": nn.RigL(UPDATES),
}


@pytest.mark.parametrize("algorithm", ["dense", *ALGORITHMS])
@pytest.mark.parametrize("kind", [optim.Adam, optim.SGD])
def test_recycling_changes_the_dead_neurons_and_nothing_else(
    algorithm: str, kind: type[optim.Optimizer]
) -> None:
    dense = algorithm == "dense"
    model = perceptron() if dense else sparse()
    options = {"lr": 0.1, "momentum": 0.9} if kind is optim.SGD else {"lr": 0.01}
    optimizer: optim.Optimizer = kind(model.parameters(), **options)  # type: ignore[arg-type]
    if dense:
        for batch in batches(4):
            loss_of(model, batch).backward()
            optimizer.step()
    else:
        masks = nn.Masking(model, optimizer, ALGORITHMS[algorithm])
        train(model, masks, optimizer, 4)
        kept, held = counts(model), copies(masks)
    kill_(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answered = model(INPUTS)
    done = nn.recycle_(model, optimizer, INPUTS, threshold=0)
    assert done.layers == {"0": DEAD}
    assert done.neurons == len(DEAD)
    assert torch.equal(model(INPUTS), answered)  # they said nothing before, and are not listened to now
    first, second = model.get_submodule("0"), model.get_submodule("2")
    others = [i for i in range(first.weight.shape[0]) if i not in DEAD]
    for name, value in model.state_dict().items():
        match name:
            case "0.weight" | "0.bias":
                assert torch.equal(value[others], before[name][others])
            case "2.weight":
                assert torch.equal(value[:, others], before[name][:, others])
                assert not value[:, list(DEAD)].any()
            case _:
                assert torch.equal(value, before[name])
    fresh, bias = first.weight[list(DEAD)], first.bias[list(DEAD)]
    assert not bias.any()
    assert not torch.equal(fresh, before["0.weight"][list(DEAD)])
    assert fresh.abs().max() <= sqrt(6 / sum(first.weight.shape))  # type: ignore[arg-type]
    mask = model.state_dict().get("0.weight_mask", torch.ones_like(before["0.weight"], dtype=torch.bool))
    assert torch.equal(fresh != 0, mask[list(DEAD)])
    slots = [(state(optimizer, first.weight), 0), (state(optimizer, first.bias), 0)]
    slots.append((state(optimizer, second.weight), 1))
    for tensors, axis in slots:
        assert tensors
        for slot in tensors:
            assert not slot.index_select(axis, torch.tensor(DEAD)).any()
            assert slot.any()
    if not dense:
        assert counts(model) == kept
        assert same(copies(masks), held)
        train(model, masks, optimizer, 6)
        hold(model, masks, kept)


def test_masks_move_on_with_exact_counts_after_recycling_between_their_updates() -> None:
    model = sparse()
    optimizer = optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    masks, kept = nn.Masking(model, optimizer, rigl(interval=3)), counts(model)
    recycling, recycled = nn.Recycling(interval=4, threshold=0.4, end=12), 0
    for step, batch in enumerate(batches(20), start=1):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        masks.step()
        optimizer.step()
        done = recycling.step_(model, optimizer, batch[0], step)
        assert (done is not None) == (step in (4, 8, 12))
        recycled += done.neurons if done else 0
        hold(model, masks, kept)
    assert recycled > 0
    assert masks.exploration.updates == 6


def test_fresh_weights_follow_from_the_seed_the_step_and_the_layer() -> None:
    def drawn(seed: int, step: int) -> Tensor:
        model = sparse()
        kill_(model)
        nn.recycle_(model, optim.SGD(model.parameters(), lr=0.1), INPUTS, threshold=0, seed=seed, step=step)
        weight = model.get_submodule("0").weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    assert torch.equal(drawn(0, 8), drawn(0, 8))
    assert not torch.equal(drawn(0, 8), drawn(0, 9))
    assert not torch.equal(drawn(0, 8), drawn(1, 8))


def test_maps_are_recycled_with_their_norm_and_with_all_pixels_that_a_linear_layer_reads() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    )
    norm, last = model[1], model[5]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        norm.bias[2], norm.weight[2] = -100, 7
        norm.running_mean[2], norm.running_var[2] = 3, 9
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    done = nn.recycle_(model, optimizer, torch.randn(8, 2, 4, 4), threshold=0)
    assert done.layers == {"0": (2,)}
    found = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    assert [float(x[2]) for x in found if x is not None] == [1, 0, 0, 1]
    assert [bool(x.any()) for x in last.weight.split(4, dim=1)] == [True, True, False, True]


@pytest.mark.parametrize("frozen", ["0.weight", "2.weight"])
def test_layers_that_the_optimizer_does_not_train_are_measured_and_left(frozen: str) -> None:
    model = perceptron()
    kill_(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [p for name, p in model.named_parameters() if name != frozen]
    done = nn.recycle_(model, optim.SGD(trained, lr=0.1), INPUTS, threshold=0)
    assert done.found.layers[0].dormant == DEAD
    assert done.neurons == 0
    assert same(dict(model.state_dict()), before)


def test_when_neurons_are_recycled() -> None:
    value = nn.Recycling(interval=5, end=12)
    assert [t for t in range(20) if value.due(t)] == [5, 10]
    assert [t for t in range(20) if nn.Recycling(interval=8).due(t)] == [8, 16]


@pytest.mark.parametrize(
    ("given", "told"), [({"interval": 0}, "interval"), ({"threshold": -1.0}, "threshold")]
)
def test_a_recycling_that_cannot_be_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        nn.Recycling(**given)
