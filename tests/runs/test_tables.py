"""What a dry run says of the cost of a run."""

from __future__ import annotations

import pytest

import iftplan as ift
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.document import parse_run
from iftplan.runs.tables import run_table

DENSE, FIRST = "a step that looks at the dense gradient", "a step before anything is masked"


@pytest.mark.parametrize(
    ("method", "notes"),
    [
        ({"name": "static"}, []),
        ({"name": "rigl"}, [DENSE]),
        ({"name": "gradual"}, [FIRST]),
        ({"name": "granet"}, [DENSE, FIRST]),
        ({"name": "granet", "initial": 0.5}, [DENSE]),
    ],
)
def test_steps_that_cost_more_than_a_masked_one_are_named(
    method: dict[str, object], notes: list[str]
) -> None:
    plan = ift.plan("zoo:digits-cnn", "wide", "3/4")
    table = run_table(parse_run({"method": method}, "a test"), plan, "runs/x")
    assert [note.partition(":")[0] for note in table.notes] == notes
    if FIRST in notes:
        cost = TrainingCost.of(plan)
        assert f"{cost.step(cost.capacity):,}".replace(",", " ") in table.notes[-1].replace(
            "\u202f", " "
        ).replace("\u00a0", " ")
