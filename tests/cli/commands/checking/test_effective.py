"""`iftplan audit MODEL --data`: effective MACs of a network of one's own, beside the static ones and never among them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_digits

from iftplan.plans.audit.document import audit_document, parse_measured, parse_report
from tests.support.cli_runs import Run, iftplan, many

NETWORK = """
import torch
from torch import nn

import iftplan as ift
from iftplan import nn as iftnn


def halves():
    '''Every input pixel x becomes ReLU(x + 2.5) and ReLU(-x - 2.5), and a third channel that is always zero.'''
    lift = nn.Conv2d(1, 3, 1)
    network = nn.Sequential(lift, nn.ReLU(), nn.Flatten(), nn.Linear(192, 10))
    if not lift.weight.is_meta:
        with torch.no_grad():
            lift.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1, 1))
            lift.bias.copy_(torch.tensor([2.5, -2.5, -1.0]))
    return network


def sparse():
    return iftnn.apply(ift.load("plan.json"), iftnn.build("zoo:digits-cnn", device="cpu"))


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(torch.linalg.inv(x[:, 0] + 9 * torch.eye(8)).sum(-1))
"""
ON_DIGITS = ("--input", "1x1x8x8", "--data", "digits")
AS_JSON = ("--format", "json")
COMMANDS = {
    "static": ("audit", "net.py:halves", "--input", "1x1x8x8", *AS_JSON),
    "measured": ("audit", "net.py:halves", *ON_DIGITS, *AS_JSON),
    "flop": ("audit", "net.py:halves", *ON_DIGITS, *AS_JSON, "--convention", "flop"),
    "table": ("audit", "net.py:halves", *ON_DIGITS),
    "csv": ("audit", "net.py:halves", *ON_DIGITS, "--format", "csv"),
    "selected": ("audit", "net.py:halves", *ON_DIGITS, *AS_JSON, "--selection", "wina:1/2@3"),
    "budget": ("audit", "net.py:halves", *ON_DIGITS, *AS_JSON, "--budget", "1k"),
    "within": ("audit", "net.py:halves", *ON_DIGITS, *AS_JSON, "--effective-budget", "1k"),
    "plan": ("plan", "zoo:digits-cnn", "--transform", "wide", "--sparsity", "3/4", "-o", "plan.json"),
    "applied": ("audit", "net.py:sparse", "--against", "plan.json", "--data", "digits", *AS_JSON),
    "unknown": ("audit", "net.py:Odd", *ON_DIGITS, *AS_JSON),
    "of a plan": ("audit", "plan.json", "--data", "digits"),
    "no data": ("audit", "net.py:halves", "--input", "1x1x8x8", "--selection", "teal:0.5"),
    "no rule": ("audit", "net.py:halves", *ON_DIGITS, "--selection", "tael:0.5"),
    "other size": ("audit", "zoo:digits-cnn", "--input", "1x1x16x16", "--data", "digits"),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder: Path = tmp_path_factory.mktemp("effective")
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    return dict(zip(COMMANDS, many(list(COMMANDS.values()), folder), strict=True))


def report(runs: dict[str, Run], name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runs[name].out)
    return found


def test_a_process_of_its_own_gives_the_zeros_that_were_built_in(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK, encoding="utf-8")
    done = iftplan(*COMMANDS["measured"], cwd=tmp_path)
    assert done.code == 0
    row = json.loads(done.out)["layers"][1]
    # one of the first two channels is active at every pixel, the third nowhere
    assert Fraction(row["activation_ratio_exact"]) == Fraction(1, 3)
    assert row["effective_macs"] * 3 == row["measured_macs"] == 1920


def test_static_counts_are_the_same_with_and_without_data(runs: dict[str, Run]) -> None:
    static, measured = report(runs, "static"), report(runs, "measured")
    effective = measured.pop("effective")
    for row in measured["layers"]:
        for key in ("effective_macs", "activation_ratio", "activation_ratio_exact"):
            row.pop(key)
    assert {k: v for k, v in measured.items() if k != "digest"} == {
        k: v for k, v in static.items() if k != "digest"
    }
    assert effective["convention"] == "effective_mac"
    assert effective["samples"] == 180 < len(load_digits().target)
    assert effective["static_macs"] == static["measured_macs"]
    assert effective["effective_macs"] == 192 + 640
    assert effective["effective_macs"] < effective["static_macs"]


def test_the_document_is_read_back(runs: dict[str, Run]) -> None:
    for name in ("measured", "flop", "within", "selected"):
        document = report(runs, name)
        again = parse_report(document)
        assert again.effective is not None
        assert parse_measured(document)[1] == {"0": 192, "3": 1920}
    mac = report(runs, "measured")
    assert audit_document(parse_report(mac)) == mac


def test_flops_are_twice_as_many_and_named_as_what_they_are(runs: dict[str, Run]) -> None:
    mac, flop = report(runs, "measured"), report(runs, "flop")
    assert flop["effective"]["convention"] == "effective_flop"
    assert flop["effective"]["effective_macs"] == 2 * mac["effective"]["effective_macs"]
    assert flop["effective"]["share_exact"] == mac["effective"]["share_exact"]


def test_tables_have_columns_of_their_own(runs: dict[str, Run]) -> None:
    assert "measured MACs   effective MACs   non-zero inputs" in runs["table"].out
    assert "832 effective MACs" in runs["table"].out
    assert "loss on these samples" in runs["table"].out
    heading = runs["csv"].out.splitlines()[0].split(",")
    assert {"measured_macs", "effective_macs", "activation_ratio"} <= set(heading)


def test_a_selection_leaves_out_what_it_says(runs: dict[str, Run]) -> None:
    found = report(runs, "selected")
    assert found["effective"]["selection"] == "wina:0.5@3"
    assert found["layers"][1]["effective_macs"] <= 960
    assert found["layers"][0]["effective_macs"] == 192


def test_budgets_are_for_static_macs_unless_effective_ones_are_asked_for(runs: dict[str, Run]) -> None:
    static, effective = report(runs, "budget"), report(runs, "within")
    assert (runs["budget"].code, static["verdict"]) == (1, "failed")  # 2 112 static ones, 832 effective ones
    assert (runs["within"].code, effective["verdict"]) == (0, "reported")


def test_a_masked_network_is_compared_with_its_plan_as_before(runs: dict[str, Run]) -> None:
    found = report(runs, "applied")
    assert (runs["applied"].code, found["passed"]) == (0, True)
    assert found["measured_macs"] == found["expected_macs"]
    assert all(
        row["effective_macs"] <= row["measured_macs"] for row in found["layers"] if row["effective_macs"]
    )
    assert found["effective"]["effective_macs"] < found["effective"]["static_macs"]


def test_unknown_costs_stay_unknown(runs: dict[str, Run]) -> None:
    assert runs["unknown"].code == 3
    found = report(runs, "unknown")
    assert found["unknown_ops"]
    assert (found["effective"]["effective_macs"], found["effective"]["share"]) == (None, None)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("of a plan", "needs a network with weights, and a plan has none"),
        ("no data", "--selection is about activations, which need data"),
        ("no rule", "Did you mean 'teal'"),
        ("other size", "samples of digits are 1x8x8"),
    ],
)
def test_what_cannot_be_measured_is_said(runs: dict[str, Run], name: str, says: str) -> None:
    assert runs[name].code == 2
    assert says in runs[name].message
