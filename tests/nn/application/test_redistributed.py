"""Networks whose weights training has moved between layers: held to their total where that is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn as tnn

import iftplan as ift
from iftplan import nn
from iftplan.checks.assertions import iso_flop
from iftplan.plans.plan import Plan

X = torch.zeros(2, 3, 16, 16)


def convolutions() -> tnn.Module:
    sizes = ((3, 8, 1), (8, 12, 2), (12, 20, 2), (20, 12, 1))
    layers = (m for i, o, s in sizes for m in (tnn.Conv2d(i, o, 3, s, 1, bias=False), tnn.ReLU()))
    return tnn.Sequential(*layers, tnn.AdaptiveAvgPool2d(1), tnn.Flatten(), tnn.Linear(12, 4))


@pytest.fixture(scope="module")
def trained() -> tuple[Plan, tnn.Module]:
    torch.manual_seed(0)
    plan = ift.plan(convolutions(), "parallel", "3/4", inputs=X)
    model = nn.apply(plan, convolutions())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    masks = nn.Masking(model, optimizer, nn.SNFS(interval=2), steps=12)
    for _ in range(12):
        loss = model(torch.randn(4, 3, 16, 16)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        masks.step()
        optimizer.step()
    masks.finish()
    return plan, model


def test_layers_differ_and_the_report_says_how_to_compare_the_total(trained: tuple[Plan, tnn.Module]) -> None:
    plan, model = trained
    report = ift.audit(model, plan)
    assert not report.passed
    assert "if training moved weights between layers, as SNFS does, compare only the total with `redistributed=True`" in report.problems[0]  # fmt: skip


def test_the_total_is_held_to_the_plans(trained: tuple[Plan, tnn.Module]) -> None:
    plan, model = trained
    report = ift.audit(model, plan, redistributed=True)
    report.raise_if_failed()
    assert 0 <= plan.macs("model") - report.measured_macs < max(layer.positions for layer in plan.layers)
    assert report.assumptions[0].startswith("weights moved between layers, so only the total was compared")
    assert nn.measure_applied(plan, model, redistributed=True).passed
    assert iso_flop(model, plan, redistributed=True).passed


def test_a_total_that_is_off_fails_all_the_same(trained: tuple[Plan, tnn.Module]) -> None:
    plan, _ = trained
    fuller, emptier = nn.apply(plan, convolutions()), nn.apply(plan, convolutions())
    with torch.no_grad():
        next(nn.masked_weights(fuller)).mask.fill_(True)
        next(nn.masked_weights(emptier)).mask.fill_(False)
    nn.enforce_(emptier)
    assert not ift.audit(fuller, plan, redistributed=True).passed
    problems = ift.audit(emptier, plan, redistributed=True).problems
    assert any("fewer" in problem for problem in problems)
    assert "redistributed" not in ift.audit(emptier, plan).problems[0]
