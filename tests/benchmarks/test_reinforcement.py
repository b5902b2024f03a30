"""The commands behind docs/results/reinforcement.md, for a few steps: their ledgers, their arms and their table."""

from __future__ import annotations

import pytest
import torch

from tests.support.programs import program

pytest.importorskip("gymnasium", reason="Gymnasium is for this benchmark alone")
pytestmark = pytest.mark.filterwarnings("ignore:Masks never change")
reinforcement = program("reinforcement")
ppo = program("reinforcement_ppo")

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


def test_what_policies_cost() -> None:
    """Two rounds: 64 steps of eight environments and the value behind them, and four passes over all states."""
    arms = {arm.name: arm for arm in ppo.PLAYED}
    found = {
        name: ppo.run(arms[name], 0, 2 * ppo.BATCH, episodes=1)
        for name in ("dense", "sparse, static", "wide, set")
    }
    dense = 4 * 128 + 128 * 128 + 128 * 3
    assert found["dense"].forward_macs == found["wide, set"].forward_macs == dense
    for outcome in found.values():
        assert outcome.training_macs == 2 * (8 * 65 + 4 * 3 * 512) * outcome.forward_macs
    assert ppo.run(arms["dense"], 0, 2 * ppo.BATCH, episodes=1) == found["dense"]


def test_advantages_are_the_discounted_surprises() -> None:
    rewards, goes_on = torch.ones(3, 1), torch.tensor([[1.0], [0.0], [1.0]])
    values = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    last = 1 + 0.99 * 4 - 3
    second = 1 - 2  # the episode ended
    first = 1 + 0.99 * 2 - 1 + 0.99 * 0.95 * second
    assert ppo.advantages(rewards, goes_on, values).flatten().tolist() == pytest.approx([first, second, last])
