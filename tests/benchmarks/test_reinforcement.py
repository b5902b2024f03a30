"""The command behind docs/results/reinforcement.md, for a few steps: its ledger, its arms and its table."""

from __future__ import annotations

import pytest

from tests.support.programs import program

pytest.importorskip("gymnasium", reason="Gymnasium is for this benchmark alone")
pytestmark = pytest.mark.filterwarnings("ignore:Masks never change")
reinforcement = program("reinforcement")

STEPS = reinforcement.WARMUP + 20
DENSE = 4 * 128 + 128 * 128 + 128 * 2


def run(name: str, seed: int = 0) -> object:
    (arm,) = (x for x in reinforcement.ARMS if x.name == name)
    return reinforcement.run(arm, seed, STEPS, episodes=1)


@pytest.fixture(scope="module")
def outcomes() -> list[object]:
    return [run("dense"), run("sparse, static"), run("wide, rigl, ReDo")]


def test_what_arms_cost(outcomes: list[object]) -> None:
    dense, sparse, wide = outcomes
    assert isinstance(dense, reinforcement.Outcome)
    assert dense.forward_macs == wide.forward_macs == DENSE  # type: ignore[attr-defined]
    assert sparse.forward_macs == 4 * 128 + 128 * 128 // 4 + 128 * 2  # type: ignore[attr-defined]
    # ten updates of 64 states, each a step and a pass of the target network, and the greedy actions
    updates = 10 * 64 * 4 * DENSE
    assert (dense.training_macs - updates) % DENSE == 0
    assert 0 <= dense.training_macs - updates <= STEPS * DENSE


def test_a_run_is_the_same_twice(outcomes: list[object]) -> None:
    assert run("dense") == outcomes[0]


def test_the_table_has_a_row_for_each_arm_with_runs(outcomes: list[object]) -> None:
    table = reinforcement.table(outcomes)
    assert [row[0] for row in table.rows] == ["dense", "sparse, static", "wide, rigl, ReDo"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert reinforcement.spread([1.0, 3.0]) == "2.0 ± 1.0"
