"""A fingerprint follows names, classes and shapes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.sources import build


def network(width: int = 4, activation: type[nn.Module] = nn.ReLU, name: str = "first") -> nn.Module:
    model = nn.Sequential()
    model.add_module(name, nn.Linear(3, width))
    model.add_module("activation", activation())
    model.add_module("second", nn.Linear(width, 4))
    model.add_module("third", nn.Linear(4, 4))
    return model


def tied() -> nn.Module:
    model = network()
    model.get_submodule("third").weight = model.get_submodule("second").weight
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.eval(),
        lambda m: m.double(),
        lambda m: m.to("meta"),
        lambda m: m.requires_grad_(False),
        lambda m: nn.init.ones_(m.first.weight) is not None and m,
    ],
    ids=["mode", "dtype", "device", "gradients", "values"],
)
def test_same_model(change: Callable[[nn.Module], nn.Module]) -> None:
    assert fingerprint(change(network())) == fingerprint(network())


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(width=5),
        lambda: network(activation=nn.GELU),
        lambda: network(name="start"),
        tied,
        lambda: nn.Sequential(network()),
    ],
    ids=["shape", "class", "name", "tie", "depth"],
)
def test_different_model(other: Callable[[], nn.Module]) -> None:
    assert fingerprint(other()) != fingerprint(network())


def test_meta_and_real_zoo_model_agree() -> None:
    torch.manual_seed(0)
    assert fingerprint(build("zoo:bert-small", device="cpu")) == fingerprint(build("zoo:bert-small"))
