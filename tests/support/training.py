"""A small applied model that is trained under moving masks, and what must be true of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, optim
from torch.nn import functional

import iftplan as ift
from iftplan import nn
from iftplan.nn.masking.algorithms.base import Order
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Updates

FLOORS = {"exp_inf": torch.tensor([1e-8]).tolist(), "step_size": torch.tensor([1e-6]).tolist()}
"""Constants that Adamax (its eps) and Rprop (its least step) write where there is nothing: no memory of a weight."""


def perceptron() -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = (12, 40, 40, 40, 5)
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    return torch.nn.Sequential(*(x for layer in layers for x in (layer, torch.nn.GELU())))[:-1]


@cache
def planned(family: str, mask: str = "unstructured") -> Plan:
    return ift.plan(ift.read_model(perceptron(), "4x12"), family, "3/4", keep_dense=("last",), mask=mask)


def sparse(
    family: str = "wide", seed: int = 0, mask: str = "unstructured", *, dense_start: bool = False
) -> torch.nn.Module:
    return nn.apply(planned(family, mask), perceptron(), seed=seed, dense_start=dense_start)


def rigl(interval: int = 3, order: Order = Order.AFTER) -> nn.RigL:
    return nn.RigL(Updates(end=1000, interval=interval), order=order)


def batches(count: int, seed: int = 0, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.randn(size, 12, generator=draw)
        yield x, x[:, :5].argmax(1)


def loss_of(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]).float(), batch[1])


def copies(masks: nn.Masking) -> dict[str, Tensor]:
    return {name: mask.clone() for name, mask in masks.masks().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def counts(model: torch.nn.Module) -> dict[str, int]:
    return {w.name: int(w.mask.sum()) for w in nn.masked_weights(model)}


def hold(model: torch.nn.Module, masks: nn.Masking, before: dict[str, int]) -> None:
    """What must be true after any training."""
    assert counts(model) == before
    for weight in nn.masked_weights(model):
        off = ~weight.mask
        assert weight.parameter[off].abs().max() == 0, weight.name
        for key, slot in masks.optimizer.state.get(weight.parameter, {}).items():
            if isinstance(slot, Tensor) and slot.shape == weight.mask.shape:
                assert set(slot[off].tolist()) <= {0.0, *FLOORS.get(key, ())}, (weight.name, key)


def train(
    model: torch.nn.Module, masks: nn.Masking, optimizer: optim.Optimizer, steps: int = 10
) -> list[float]:
    losses = []
    for batch in batches(steps):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        masks.step()
        optimizer.step()
        losses.append(loss.item())
    return losses
