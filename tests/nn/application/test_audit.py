"""`ift.audit`: what the command, the check and Python ask, with one answer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.models.counting import Contraction, CountTable
from iftplan.models.spec import InputSpec
from iftplan.nn.application import audit
from iftplan.nn.application.model_cost import measure_model
from iftplan.nn.counting.cross_check import measure_by
from iftplan.nn.sources import build
from iftplan.plans.audit.document import audit_document, parse_report
from iftplan.plans.plan import Scope
from tests.support.cli_runs import iftplan

FACTORY = """
from torch import nn


def net(wide=24):
    return nn.Sequential(nn.Linear(8, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 4))


def wider():
    return net(32)
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(FACTORY)
    return f"{tmp_path}/net.py:net"


def test_python_the_command_and_the_check_say_the_same(source: str, tmp_path: Path) -> None:
    plan = ift.plan(ift.read_model(source, "2x8"), "wide", "3/4")
    report = ift.audit(plan, model=source)
    assert report.passed
    assert report.measured_macs == plan.macs(Scope.LAYERS)
    path = str(tmp_path / "plan.json")
    ift.save(plan, path)
    done = iftplan("audit", path, "--trust", "--format", "json", cwd=tmp_path)
    assert json.loads(done.out) == audit_document(report)
    asked = {"source": path, "builds": source, "allow": [], "cross_check": True, "nonzeros": False}
    assert sum(measure_model({**asked, "inputs": []}).macs.values()) == report.measured_macs


def test_python_that_a_plan_names_runs_only_where_somebody_names_it_too(source: str) -> None:
    plan = ift.plan(ift.read_model(source, "2x8"), "parallel", "3/4")
    with pytest.raises(
        ift.InputError, match=r"would run Python code, .*net\.py:net. A plan file is only data"
    ):
        ift.audit(plan)
    assert ift.audit(plan, trust=True).passed
    with pytest.raises(ift.StaleError, match=r"wider is not the model that the plan was made for"):
        ift.audit(plan, model=source.replace(":net", ":wider"))


def test_a_network_of_ones_own_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = ift.plan(ift.read_model(network, "2x8"), "wide", "1/2", keep_dense="none")
    before = str(network)
    assert ift.audit(plan, model=network).passed
    assert ift.audit(plan, model=network.to("meta")).passed
    assert str(network) == before
    with pytest.raises(ift.InputError, match="does not name the model that it was made for"):
        ift.audit(plan)


def test_engines_that_count_differently_are_a_problem_of_the_report_and_the_end_of_a_check(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_opinions(*arguments: Any, **named: Any) -> tuple[CountTable, ...]:
        found = measure_by(*arguments, **named)
        more = Contraction("0", "linear", found[0].macs + 1, "0.weight")
        return (*found[:1], CountTable("another", (more,)))

    monkeypatch.setattr(audit, "measure_by", two_opinions)
    network = build(source)
    report = audit.audit_network("net", network, [InputSpec((2, 8))])
    assert report.disagreements == report.problems
    assert "another" in report.problems[0]
    asked = {"source": source, "inputs": ["2x8"], "allow": [], "cross_check": True, "nonzeros": False}
    with pytest.raises(ift.MeasureError, match="another"):
        measure_model(asked)


class Branching(nn.Module):
    """A network that may compute more than it did when it was planned."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.extra: nn.Module | None = None
        self.squared = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.c(self.b(self.a(x).relu()).relu())
        if self.squared:
            y = y @ y.transpose(0, 1)
        return y if self.extra is None else self.extra(y)


def test_what_the_plan_has_no_row_for_is_counted_and_a_problem() -> None:
    network = Branching()
    plan = ift.plan(network, "parallel", "1/2", inputs="2x8")
    applied = ift.nn.apply(plan, network)
    planned = ift.audit(applied, plan)
    assert planned.passed
    applied.squared = True
    report = ift.audit(applied, plan)
    assert not report.passed
    assert (
        "matmul costs 16 MACs and has no row in the plan; the network is not the one that was planned"
        in str(report.problems)
    )
    applied.squared, applied.extra = False, nn.Linear(4, 1000)
    report = ift.audit(applied, plan)
    assert not report.passed
    assert "extra.weight costs 8 000 MACs" in str(report.problems)
    assert not ift.audit(applied, plan, redistributed=True).passed
    whole = ift.plan(network, "parallel", "1/2", inputs="2x8", scope="model")
    report = ift.audit(applied, whole)
    assert report.measured_macs == (report.expected_macs or 0) + 8_000
    assert report.counters["meta"] == report.measured_macs
    again = parse_report(audit_document(report))
    assert (again.measured_macs, again.problems) == (report.measured_macs, report.problems)


def test_inputs_that_are_not_the_plan_s_are_named() -> None:
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = ift.plan(network, "parallel", "1/2", inputs="2x8")
    report = ift.audit(ift.nn.apply(plan, network), plan, inputs="32x8")
    assert not report.passed
    assert "The plan is for input 2x8, and the network was counted with 32x8." in report.problems


def test_what_a_network_leaves_unused_can_be_allowed() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
            self.aux = nn.Linear(4, 4)
            self.helps = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.b(self.a(x).relu())
            return self.aux(y) if self.helps else y

    network = Idle()
    network.helps = False
    base = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    plan = ift.plan(base, "none", "1/2", inputs="2x8", keep_dense="none")
    with pytest.raises(ift.MeasureError, match=r"pass `may_stay_uncalled=\['aux'\]`"):
        ift.audit(network, plan).raise_if_failed()
    assert "aux" not in str(ift.audit(network, plan, may_stay_uncalled=["aux"]).problems)
    with pytest.raises(ift.InputError, match="model and trust are for a plan"):
        ift.audit(network, plan, trust=True)  # type: ignore[call-overload]
