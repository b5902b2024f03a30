"""Plans of one module alone, in networks that run: shapes beside it stay, and the audit finds the plan's MACs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.nn import apply, densify, measure_applied, warm_start_
from iftplan.plans.audit.document import audit_document, parse_measured, parse_report

ENGINES = ("meta", "fvcore", "flop_counter")


class TwoParts(nn.Module):
    """A residual backbone, and a head that reads two of its maps, one depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
                nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
                nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            ]
        )
        self.fine = nn.Conv2d(8, 4, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.coarse = nn.Conv2d(16, 6, 1)
        self.classes = nn.Linear(10, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = self.backbone[0](images)
        second = first + self.backbone[1](first)
        third = self.backbone[2](second)
        maps = self.fine(second), self.coarse(self.depthwise(third))
        found: Tensor = self.classes(torch.cat([x.mean((2, 3)) for x in maps], 1))
        return found


IMAGES = (2, 3, 8, 8)


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "none"])
@pytest.mark.parametrize("scope", ["module:backbone", "model"])
def test_an_applied_module_is_what_was_planned(family: str, scope: str) -> None:
    dense = TwoParts()
    plan = ift.plan(dense, family, "1/2", inputs=IMAGES, scope=scope, within="backbone")
    model = apply(plan, dense)
    report = measure_applied(plan, model, engines=ENGINES)
    assert report.passed, report.problems
    assert len(set(report.counters.values())) == 1
    closed = plan.scope or "model"
    assert report.measured_macs == plan.macs(closed)
    assert model(torch.randn(IMAGES)).shape == (2, 5)
    for name in ("fine", "coarse", "classes"):
        before, after = dense.get_submodule(name).weight, model.get_submodule(name).weight
        assert after.shape[0] == before.shape[0]
    wider = 12 if family == "wide" else 8  # ⌈8·√2⌉
    assert model.get_submodule("fine").in_channels == wider
    assert model.get_submodule("depthwise").groups == (23 if family == "wide" else 16)


def test_the_report_names_the_module() -> None:
    dense = TwoParts()
    plan = ift.plan(dense, "wide", "1/2", inputs=IMAGES, scope="module:backbone")
    report = ift.audit(plan, model=dense)
    assert report.passed
    assert (report.scope_name, report.measured_macs) == ("module:backbone", plan.dense_macs("module"))
    document = audit_document(report)
    assert (document["scope"], document["within"]) == ("module", "backbone")
    assert parse_report(document) == report
    assert sum(parse_measured(document)[1].values()) == plan.macs("model")
    assert "within" not in audit_document(
        ift.audit(ift.plan(dense, "wide", "1/2", inputs=IMAGES), model=dense)
    )


def test_a_wide_module_starts_from_trained_weights() -> None:
    """At twice the width every channel has two replicas, and the head beside the module computes with both."""
    torch.manual_seed(0)
    dense = TwoParts().eval()
    plan = ift.plan(dense, "wide", "3/4", inputs=IMAGES, scope="module:backbone")
    model = densify(apply(plan, dense, nonlinear=False)).eval()
    warm_start_(model, dense, plan)
    images = torch.randn(IMAGES)
    torch.testing.assert_close(model(images), dense(images), rtol=1e-4, atol=1e-5)
