"""Small hosts of every kind that plans are applied to in the tests, with the families that fit them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.models.spec import InputSpec
from iftplan.nn import masked_weights
from iftplan.nn.meta.inputs import make_inputs
from iftplan.plans.plan import Plan
from tests.support.models.widths import MODELS

FAMILIES = ("wide", "parallel", "factorized", "doped", "lowrank")


class Small(nn.Module):
    """Convolutions of every number of groups, a depthwise one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32),
            nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU(), nn.Conv2d(32, 32, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 40), nn.GELU(), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 5))


HOSTS = {
    "convolutions": (Small, (InputSpec((2, 3, 8, 8)),)),
    "perceptron": (perceptron, (InputSpec((4, 12)),)),
    **{name: MODELS[name] for name in ("residual", "GPT-2", "BERT", "Llama, grouped queries")},
}


def host(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = HOSTS[name][0]().eval()
    return model


@cache
def planned(name: str, family: str | None, sparsity: str = "1/2", mask: str | None = None) -> Plan:
    inputs = tuple(str(spec) for spec in HOSTS[name][1])
    spec = ift.read_model(host(name), *inputs, widths=family in ("wide", "lowrank", "nm"))
    return ift.plan(spec, family, sparsity, scope="matrices", mask=mask)


def answer(model: nn.Module, name: str) -> Tensor:
    """What a model says to one seeded input: its logits, where it has them."""
    torch.manual_seed(1)
    args, kwargs = make_inputs(HOSTS[name][1], "cpu")
    args = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in args)
    output = model(*args, **kwargs)
    return getattr(output, "logits", output)


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    return {weight.name: weight.mask for weight in masked_weights(model)}
