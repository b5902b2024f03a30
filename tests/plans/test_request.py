"""What a plan is asked for: the same question in Python, on the command line, in a run's settings and in a sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.masks.distributions import Distribution
from iftplan.models.document import spec_document
from iftplan.plans.document.plan import plan_document
from iftplan.plans.plan import Scope
from iftplan.plans.request import PlanRequest, make_plan
from iftplan.runs.document import parse_run
from iftplan.runs.settings import PlanConfig
from iftplan.runs.sweeps.grid import plan_row, planned_rows
from tests.support.cli_runs import iftplan
from tests.support.hand_specs import chain


@pytest.mark.parametrize(
    ("in_python", "as_options", "as_settings"),
    [
        ({"family": "wide", "sparsity": "3/4"}, "", {}),
        (
            {"family": "doped", "sparsity": 0.5, "scope": "model", "distribution": "erk", "keep_dense": "first"},
            "--transform doped --sparsity 50% --scope model --distribution erk --keep-dense first",
            {"transform": "doped", "sparsity": 0.5, "scope": "model", "distribution": "erk", "keep_dense": ["first"]},
        ),
        (
            {"family": "none", "sparsity": "1/2", "mask": "2:4+pad", "keep_dense": "none"},
            "--transform none --structure 2:4+pad --keep-dense none",
            {"transform": "none", "sparsity": "1/2", "mask": "2:4+pad", "keep_dense": ["none"]},
        ),
        (
            {"family": "wide", "sparsity": "3/4", "round_to": 8},
            "--round-to 8",
            {"round_to": 8},
        ),
    ],
)  # fmt: skip
def test_all_who_ask_for_a_plan_get_the_same(
    in_python: dict[str, Any], as_options: str, as_settings: dict[str, Any], tmp_path: Path
) -> None:
    expected = plan_document(ift.plan(chain(), **in_python))
    (tmp_path / "chain.json").write_text(json.dumps(spec_document(chain())))
    done = iftplan("plan", "chain.json", *as_options.split(), "--format", "json", cwd=tmp_path)
    assert json.loads(done.out) == expected
    settings = parse_run({"plan": as_settings}, "run.toml").plan
    made = make_plan(chain(), settings.request)
    assert plan_document(made) == expected
    (row,) = planned_rows({settings.model: chain()}, [settings])
    assert row == plan_row(settings, made)


def test_the_defaults_are_said_once() -> None:
    assert PlanConfig().request == PlanRequest(sparsity="3/4")
    asked = PlanRequest(keep_dense=("none",), mask="1:8", family="nm").policy()
    assert (asked.keep_dense, float(asked.sparsity)) == (frozenset(), 7 / 8)
    assert PlanRequest().policy() == PlanRequest("wide", 0.75, Scope.LAYERS, Distribution.UNIFORM).policy()


def test_a_request_that_does_not_go_together_is_refused_before_a_model_is_read() -> None:
    with pytest.raises(InputError, match="keeps every N:M pattern whole"):
        PlanRequest(close_by="pattern").policy()
    with pytest.raises(InputError, match="sparsity"):
        PlanRequest(sparsity="").policy()
