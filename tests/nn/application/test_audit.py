"""`ift.audit`: what the command, the check and Python ask, with one answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import iftplan as ift
from iftplan.models.counting import Contraction, CountTable
from iftplan.models.spec import InputSpec
from iftplan.nn.application import audit
from iftplan.nn.application.model_cost import measure_model
from iftplan.nn.counting.cross_check import measure_by
from iftplan.nn.sources import build
from iftplan.plans.audit.document import audit_document
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
