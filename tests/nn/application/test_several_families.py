"""Plans with several families in networks that run: each layer becomes what its own family makes of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.nn import apply, masked_weights, measure_applied
from iftplan.nn.layers.branches import Doped, Factorized, Parallel
from iftplan.nn.sources import build

ENGINES = ("meta", "fvcore", "flop_counter")
GPT = {"*.attn.c_attn": "parallel", "*.mlp.c_fc": "factorized", "*.mlp.c_proj": "doped", "*": "wide"}


@pytest.mark.parametrize(
    ("name", "families", "scope"),
    [
        ("digits-cnn", {"3": "wide", "*": "parallel"}, "layers"),
        ("digits-cnn", {"3": "doped", "6": "factorized"}, "model"),
        ("resnet8-cifar", {"*.layer.0.*": "parallel", "*.layer.1.*": "wide", "*": "none"}, "layers"),
        pytest.param("gpt-char", GPT, "layers", marks=pytest.mark.slow),
        pytest.param("gpt-char", {"*.attn.*": "lowrank", "*": "wide"}, "model", marks=pytest.mark.slow),
        pytest.param("mobilenetv2-cifar", {"*.0.*": "parallel", "*": "wide"}, "layers", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_an_applied_mixture_costs_what_was_planned(name: str, families: dict[str, str], scope: str) -> None:
    plan = ift.plan(f"zoo:{name}", families, "1/2", scope=scope)
    assert len(plan.families) > 1
    model = apply(plan, build(f"zoo:{name}"))
    report = measure_applied(plan, model, engines=ENGINES)
    assert report.passed, report.problems
    assert len(set(report.counters.values())) == 1
    assert all(layer.agrees for layer in report.layers)
    assert report.measured_macs == plan.macs(scope)
    assert ift.audit(plan).passed


def test_every_layer_becomes_what_its_family_makes_of_it_at_its_neighbours_widths() -> None:
    plan = ift.plan("zoo:digits-cnn", {"3": "wide", "6": "parallel"}, "3/4")
    model = apply(plan, build("zoo:digits-cnn", device="cpu"))
    member = model.get_submodule("6")
    assert isinstance(member, Parallel)
    widened = {x.name: x.after for x in plan.layers}["6"]
    assert widened is not None and widened.in_channels == 64
    assert member.branches[0].in_channels == 64
    assert not isinstance(model.get_submodule("3"), Parallel | Factorized | Doped)
    loss = model(torch.randn(2, 1, 8, 8)).square().mean()
    loss.backward()
    assert all(weight.parameter.grad is not None for weight in masked_weights(model))


@pytest.mark.parametrize(
    ("families", "replaced"),
    [
        ({"1": "monarch", "*": "wide"}, False),
        ("monarch", False),
        ({"1": "parallel", "*": "monarch"}, True),
        ("parallel", True),
    ],
)
def test_a_grouped_layer_is_judged_by_its_own_family(families: Any, replaced: bool) -> None:
    """Groups are blocks already, which matters to a layer that would become blocks, whatever the others become."""
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1, groups=4), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 8, 1)
    )  # fmt: skip
    spec = ift.read_model(network, "1x3x8x8")
    row = next(layer for layer in ift.plan(spec, families, "3/10").layers if layer.name == "1")
    assert ("its groups are blocks already" in row.reason) is not replaced
