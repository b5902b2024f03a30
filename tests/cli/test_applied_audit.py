"""An applied model on the command line: its own masks, layer by layer, against the plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor
from torch import nn as tnn

import iftplan as ift
from iftplan import nn
from tests.support.cli_runs import Run, many

NETWORK = """
import torch
from torch import nn as tnn

import iftplan as ift
from iftplan import nn


def dense():
    return tnn.Sequential(tnn.Linear(6, 20), tnn.ReLU(), tnn.Linear(20, 20), tnn.ReLU(), tnn.Linear(20, 4))


def sparse():
    return nn.apply(ift.load("plan.json"), dense())


def trained():
    model = sparse()
    nn.Masking(model, torch.optim.SGD(model.parameters(), 0.1), "rigl", steps=10)
    return model


def leaking():
    model = sparse()
    mask = next(nn.masked_weights(model)).mask
    if not mask.is_meta:
        mask.fill_(True)
    return model
"""

AUDIT = ("--against", "plan.json", "--format", "json")
COMMANDS = {
    "plan": ("plan", "net.py:dense", "--input", "4x6", "--transform", "doped", "--sparsity", "1/2", "-o", "plan.json"),
    "on meta": ("audit", "net.py:sparse", *AUDIT),
    "on its masks": ("audit", "net.py:sparse", *AUDIT, "--nonzeros", "--cross-check"),
    "leaking": ("audit", "net.py:leaking", *AUDIT, "--nonzeros"),
    "trained on meta": ("audit", "net.py:trained", *AUDIT),
    "trained": ("audit", "net.py:trained", *AUDIT, "--nonzeros"),
    "dense": ("audit", "net.py:dense", *AUDIT, "--input", "4x6"),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder: Path = tmp_path_factory.mktemp("applied")
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    return dict(zip(COMMANDS, many(list(COMMANDS.values()), folder), strict=True))


def test_masks_with_values_are_counted(runs: dict[str, Run]) -> None:
    report = json.loads(runs["on its masks"].out)
    assert (runs["on its masks"].code, report["passed"]) == (0, True)
    assert report["measured_macs"] == report["expected_macs"]
    assert {"meta", "fvcore", "flop_counter"} <= set(report["counters"])
    assert len(set(report["counters"].values())) == 1
    middle = next(layer for layer in report["layers"] if layer["name"] == "2")
    assert middle["measured_macs"] == middle["expected_macs"] == 4 * 20 * 20  # batch × the dense matrix
    assert not any("planned, not measured" in sentence for sentence in report["assumptions"])


def test_masks_without_values_are_the_plans_and_the_report_says_so(runs: dict[str, Run]) -> None:
    report = json.loads(runs["on meta"].out)
    assert runs["on meta"].code == 0
    assert any("planned, not measured" in sentence for sentence in report["assumptions"])


def test_masks_that_need_values_name_the_option_that_gives_them(runs: dict[str, Run]) -> None:
    refused = runs["trained on meta"]
    assert refused.code == 2
    assert "is on the meta device, where it has no values" in refused.err
    assert "has values with --nonzeros." in refused.err
    assert runs["trained"].code == 0


def test_a_mask_that_keeps_too_much_fails(runs: dict[str, Run]) -> None:
    report = json.loads(runs["leaking"].out)
    assert (runs["leaking"].code, report["passed"]) == (1, False)
    assert report["measured_macs"] > report["expected_macs"]


def test_the_dense_network_of_a_plan_is_not_the_planned_one(runs: dict[str, Run]) -> None:
    report = json.loads(runs["dense"].out)
    assert (runs["dense"].code, report["verdict"]) == (1, "failed")
    assert report["measured_macs"] == report["expected_macs"]  # equal MACs are the point of the plan
    told = "net.py:dense is the dense network that the plan was made for, and not the planned one; both cost the same by design"
    assert told in runs["dense"].err
    assert told not in runs["on meta"].err


class TwoHeads(tnn.Module):
    """The auxiliary head is used in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.aux = (tnn.Linear(8, n) for n in (8, 8, 4, 3))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.b(self.a(x).relu()).relu()
        return (self.c(x), self.aux(x)) if self.training else self.c(x)


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped", None])
def test_weights_that_the_forward_pass_never_uses_are_a_problem_by_name(family: str | None) -> None:
    model = TwoHeads()
    plan = ift.plan(ift.read_model(model, "2x8", widths=family == "wide"), family, "1/2")
    applied = nn.apply(plan, model)
    report = nn.measure_applied(plan, applied)
    assert not report.passed
    assert report.problems == (
        "aux holds weights that the forward pass never used; if that is meant, give may_stay_uncalled=('aux',).",
    )
    assert nn.measure_applied(plan, applied, may_stay_uncalled=("aux",)).passed
