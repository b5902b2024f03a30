"""Schedules against published vectors and by hand, and when masks change, with every end in and out."""

from __future__ import annotations

from math import e
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InputError
from iftplan.runs.schedules import Constant, Cosine, Cubic, Exponential, Linear, Power, Schedule, Updates

T_END = 75_000


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.3), (18_750, 0.256066), (37_500, 0.15), (56_250, 0.043934), (75_000, 0.0)]
)
def test_cosine_vectors_of_rigl(step: int, expected: float) -> None:
    updates = Updates(end=T_END)
    assert Cosine(0.3).at(updates.progress(step)) == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("progress", "sparsity"), [(0.0, 0.0), (0.25, 0.5203125), (0.5, 0.7875), (0.75, 0.8859375), (1.0, 0.9)]
)
def test_cubic_vectors_of_gradual_pruning(progress: float, sparsity: float) -> None:
    assert Cubic(0.0, 0.9).at(progress) == pytest.approx(sparsity, abs=1e-15)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.3), (0.3, 0.3, 0.3)),
        (Linear(0.4), (0.4, 0.2, 0.0)),
        (Power(0.8, 3), (0.8, 0.1, 0.0)),
        (Power(0.8, 1), (0.8, 0.4, 0.0)),  # a line
        (Exponential(0.4, 2), (0.4, 0.4 / e, 0.4 / e**2)),
        (Cosine(0.5), (0.5, 0.25, 0.0)),
        (Cubic(0.2, 1.0), (0.2, 0.9, 1.0)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else "",
)
def test_schedules_at_their_ends_and_in_the_middle(schedule: Schedule, values: tuple[float, ...]) -> None:
    assert [schedule.at(p) for p in (0, 0.5, 1)] == pytest.approx(values)
    assert schedule.at(-1) == schedule.at(0)
    assert schedule.at(2) == schedule.at(1)


def test_the_two_meanings_of_exponential_are_two() -> None:
    assert Power(0.3, 3).at(0.5) == pytest.approx(0.3 / 8)
    assert Exponential(0.3, 3).at(0.5) == pytest.approx(0.3 * e**-1.5)


@pytest.mark.parametrize(
    ("at_begin", "at_end", "steps"),
    [
        (False, False, [13, 16]),
        (True, False, [10, 13, 16]),
        (False, True, [13, 16, 19]),
        (True, True, [10, 13, 16, 19]),
    ],
)
def test_ends_are_in_or_out(at_begin: bool, at_end: bool, steps: list[int]) -> None:
    updates = Updates(end=19, interval=3, begin=10, at_begin=at_begin, at_end=at_end)
    assert [step for step in range(40) if updates.due(step)] == steps


def test_an_end_that_no_interval_meets_is_no_update() -> None:
    assert not Updates(end=20, interval=3, begin=10, at_end=True).due(20)


@given(st.integers(0, 30), st.integers(0, 60), st.integers(1, 12), st.booleans(), st.booleans())
def test_as_many_updates_as_counted(
    begin: int, span: int, interval: int, at_begin: bool, at_end: bool
) -> None:
    updates = Updates(begin + span, interval, begin, at_begin, at_end)
    assert updates.count() == sum(updates.due(step) for step in range(begin + span + 20))


@given(
    st.integers(1, 12),
    st.integers(0, 30),
    st.integers(0, 60),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1),
)
def test_the_last_update_is_the_last_step_at_which_one_is_due(
    interval: int, begin: int, length: int, at_begin: bool, at_end: bool, count_from: int
) -> None:
    updates = Updates(begin + length, interval, begin, at_begin, at_end, count_from)
    due = [step for step in range(-1, begin + length + 2) if updates.due(step)]
    assert updates.last_due == (due[-1] if due else None)


def test_progress_counts_from_the_first_step_of_training() -> None:
    # f_t = α/2·(1 + cos(π·t/T_end)) with t the training step, also where updates begin later
    assert Updates(end=100, begin=50).progress(50) == 0.5
    assert Updates(end=0).progress(0) == 1.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"end": 10, "interval": 0}, "every 0 steps"),
        ({"end": 10, "begin": 11}, "from step 11 to step 10"),
        ({"end": -1}, "from step 0 to step -1"),
    ],
)
def test_updates_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Updates(**given)
