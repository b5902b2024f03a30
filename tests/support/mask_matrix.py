"""Two hundred steps of any algorithm under any optimizer and structure, and what must be true of masks and slots."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn, optim

import iftplan as ift
from iftplan.nn import Masking, apply, masked_weights
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Updates

STEPS = 200


UPDATES = Updates(end=150, interval=20)


OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "SGD": (optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "SGD foreach": (optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "foreach": True}),
    "SGD fused": (optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "fused": True}),
    "Adam": (optim.Adam, {"lr": 0.01, "weight_decay": 0.01}),
    "Adam foreach": (optim.Adam, {"lr": 0.01, "foreach": True}),
    "AdamW amsgrad": (optim.AdamW, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    "AdamW fused": (optim.AdamW, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "fused": True}),
}


class Tiny(nn.Module):
    """A convolution of every kind of group, and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 1)
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.c = nn.Linear(8, 16)
        self.d = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(self.stem(x)).relu()).relu().mean((2, 3))
        return self.head(self.d(self.c(x).relu()).relu())


@cache
def planned(distribution: str, mask: str = "unstructured") -> Plan:
    sparsity = "3/4" if mask == "unstructured" else "1/2"
    spec = ift.read_model(Tiny(), "2x2x4x4")
    return ift.plan(spec, None, sparsity, scope="matrices", distribution=distribution, mask=mask)


def in_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Three parameter groups: what decays, what does not, and the head at a rate of its own."""
    head = list(model.head.parameters())
    rest = [p for p in model.parameters() if all(p is not h for h in head)]
    return [
        {"params": [p for p in rest if p.ndim > 1]},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        {"params": head, "lr": 0.02},
    ]


def trained(plan: Plan, algorithm: Algorithm, optimizer: str) -> Masking:
    """After as many steps with gradients drawn at random: nothing but masks keeps weights where they are."""
    torch.manual_seed(0)
    model = apply(plan, Tiny(), dense_start=algorithm.starts_dense)
    make, options = OPTIMIZERS[optimizer]
    stepper = make(in_groups(model), **options)
    masks = Masking(model, stepper, algorithm, structure=plan.mask)
    model(torch.ones(2, 2, 4, 4))  # as any loop does: it is seen what a sample looks like
    parameters = list(model.parameters())
    drawn = [[torch.randn_like(p) for p in parameters] for _ in range(7)]
    for step in range(STEPS):
        for parameter, gradient in zip(parameters, drawn[step % 7], strict=True):
            parameter.grad = gradient * parameter if masks.wants_graph else gradient.clone()
        masks.step()
        stepper.step()
    return masks


def hold_to(plan: Plan, masks: Masking, *, by: Literal["layer", "weights", "macs"] = "layer") -> None:
    """Counts are those of the plan: in each layer, or in all as weights or as MACs; and nothing is off the masks."""
    counts = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    found = {weight.name: weight for weight in masked_weights(masks.model)}
    assert set(found) == set(counts)
    kept = {name: int(weight.mask.sum()) for name, weight in found.items()}
    if by == "layer":
        assert kept == counts
    costs = {layer.weight: layer.positions if by == "macs" else 1 for layer in plan.layers if layer.maskable}
    assert sum(costs[name] * n for name, n in kept.items()) == sum(
        costs[name] * n for name, n in counts.items()
    )
    assert masks.nnz == kept
    for name, weight in found.items():
        off = ~weight.mask
        assert off.any() or counts[name] == off.numel()
        assert not weight.parameter[off].any(), name
        assert weight.parameter[weight.mask].isfinite().all(), name
        state = masks.optimizer.state[weight.parameter]
        slots = [v for v in state.values() if isinstance(v, Tensor) and v.shape == off.shape]
        assert len(slots) >= (1 if isinstance(masks.optimizer, optim.SGD) else 2)
        for slot in slots:
            assert not slot[off].any(), name
            assert slot[weight.mask].any(), name
