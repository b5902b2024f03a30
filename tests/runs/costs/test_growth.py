"""Schedules of widths close a budget to the step: held against counting and against all schedules there are."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.runs.costs.growth import GrowthSchedule, within_budget, within_steps


def counted(schedule: GrowthSchedule, costs: list[int], growths: list[int]) -> int:
    """MACs of a run, added step by step."""
    macs, stage = 0, 0
    for step in range(schedule.steps):
        while stage + 1 < len(costs) and step == schedule.begins[stage + 1]:
            macs += growths[stage]
            stage += 1
        assert stage == schedule.stage_at(step)
        macs += costs[stage]
        assert macs == schedule.macs_after(step + 1)
    return macs


COSTS = st.lists(st.integers(1, 40), min_size=2, max_size=4, unique=True).map(sorted)


@given(st.data(), COSTS, st.integers(0, 3000))
def test_no_growth_step_could_come_earlier(data: st.DataObject, costs: list[int], budget: int) -> None:
    steps = data.draw(st.integers(len(costs), 60))
    growths = data.draw(st.lists(st.integers(0, 50), min_size=len(costs) - 1, max_size=len(costs) - 1))
    shares = data.draw(
        st.lists(st.fractions(Fraction(1, 9), 5), min_size=len(costs) - 1, max_size=len(costs) - 1)
    )
    try:
        made = within_steps(costs, budget, steps, growths=growths, shares=shares)
    except InfeasibleError:
        ends = [
            sum(n * c for n, c in zip(lengths, costs, strict=True)) + sum(growths)
            for lengths in (
                [1] * (len(costs) - 1) + [steps - len(costs) + 1],
                [steps - len(costs) + 1] + [1] * (len(costs) - 1),
            )
        ]
        assert budget < min(ends) or budget >= max(ends) + costs[-1]
        return
    assert made.steps == steps
    assert min(stage.steps for stage in made.stages) >= 1
    assert made.macs == counted(made, costs, growths) <= budget
    for before, after in zip(made.stages, made.stages[1:], strict=False):
        assert before.steps == 1 or made.left < after.macs - before.macs


@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 80), st.integers(0, 4000))
def test_with_one_growth_step_it_is_the_dearest_schedule_there_is(
    low: int, rise: int, steps: int, budget: int
) -> None:
    affordable = [m for n in range(1, steps) if (m := n * low + (steps - n) * (low + rise)) <= budget]
    try:
        made = within_steps((low, low + rise), budget, steps)
    except InfeasibleError:
        assert not affordable or budget >= max(affordable) + low + rise
        return
    assert made.macs == max(affordable)


@given(st.data(), COSTS, st.integers(0, 5000))
def test_no_step_more_is_within_the_budget(data: st.DataObject, costs: list[int], budget: int) -> None:
    growths = data.draw(st.lists(st.integers(0, 50), min_size=len(costs) - 1, max_size=len(costs) - 1))
    shares = data.draw(st.lists(st.integers(1, 9), min_size=len(costs), max_size=len(costs)))
    if budget < sum(costs) + sum(growths):
        with pytest.raises(InfeasibleError, match="smallest budget"):
            within_budget(costs, budget, growths=growths, shares=shares)
        return
    made = within_budget(costs, budget, growths=growths, shares=shares)
    assert made.macs == counted(made, costs, growths)
    assert 0 <= made.left < costs[0]
    assert min(stage.steps for stage in made.stages) >= 1


def test_shares_are_kept_where_the_budget_allows() -> None:
    made = within_budget((10, 20, 40), 100_000, shares=(1, 1, 2))
    assert [stage.steps for stage in made.stages] == [
        910,
        909,
        1818,
    ]  # 110 MACs a unit: 909 of them, and 10 MACs left
    assert made.left == 0
    made = within_steps((10, 20, 40), 3000, 100, shares=(1, 3))
    assert (made.begins, made.left) == ((0, 12, 44), 0)  # 12·10 + 44·20 MACs are saved of 4000


def test_of_few_steps_all_schedules_are_tried() -> None:
    """Among all times to grow, none that is earlier in one place and nowhere later is within the budget."""
    costs, steps = (3, 7, 8), 9
    for budget in range(40, 72):
        try:
            made = within_steps(costs, budget, steps)
        except InfeasibleError:
            continue
        own = made.begins[1:]
        for other in combinations(range(1, steps), 2):
            if (
                other != own
                and all(a <= b for a, b in zip(other, own, strict=True))
                and sum(own) - sum(other) == 1
            ):
                a, b = other
                assert a * 3 + (b - a) * 7 + (steps - b) * 8 > budget


@pytest.mark.parametrize(
    ("costs", "options", "words"),
    [
        ((5,), {}, "do not make a schedule"),
        ((5, 5), {}, "have to rise"),
        ((5, 6), {"growths": (1, 1)}, "do not make a schedule"),
        ((5, 6), {"shares": (0,)}, "positive"),
    ],
)
def test_what_is_no_schedule_is_refused(
    costs: tuple[int, ...], options: dict[str, tuple[int, ...]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        within_steps(costs, 100, 10, **options)
