"""Dominance, frontier, estimates and readings, against brute force and by their laws."""

from __future__ import annotations

import statistics
from itertools import pairwise
from math import inf, nan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InputError
from iftplan.runs.results.pareto import (
    Point,
    ReadingOutcome,
    Sense,
    Senses,
    dominates,
    equal_reading,
    estimate,
    frontier,
    iso_groups,
)

small = st.integers(-3, 3).map(float)  # small, so that ties and duplicates are common
points = st.lists(st.builds(Point, small, small), max_size=25)
costs = st.lists(st.builds(Point, st.integers(1, 6).map(float), small), min_size=1, max_size=12)
senses = st.builds(Senses, st.sampled_from(Sense), st.sampled_from(Sense))


@given(points, senses)
def test_the_frontier_is_what_no_other_point_dominates(given_points: list[Point], s: Senses) -> None:
    brute = {i for i, p in enumerate(given_points) if not any(dominates(q, p, s) for q in given_points)}
    assert set(frontier(given_points, s)) == brute


@given(points, senses)
def test_the_frontier_gets_better_and_dearer(given_points: list[Point], s: Senses) -> None:
    line = [given_points[i] for i in frontier(given_points, s)]
    for a, b in pairwise(line):
        assert a == b or (s.x.sign * (a.x - b.x) > 0 and s.y.sign * (b.y - a.y) > 0)


@given(st.builds(Point, small, small), st.builds(Point, small, small), senses)
def test_dominance_is_by_both_objectives(a: Point, b: Point, s: Senses) -> None:
    better_x = a.x < b.x if s.x is Sense.LOWER else a.x > b.x
    better_y = a.y < b.y if s.y is Sense.LOWER else a.y > b.y
    assert dominates(a, b, s) == (
        (better_x or a.x == b.x) and (better_y or a.y == b.y) and (better_x or better_y)
    )
    assert not (dominates(a, b, s) and dominates(b, a, s))


@pytest.mark.parametrize("x, y", [(nan, 1.0), (1.0, inf), (-inf, 0.0)])
def test_points_that_cannot_be_compared_are_refused(x: float, y: float) -> None:
    with pytest.raises(InputError, match="cannot be compared"):
        Point(x, y)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_the_standard_error_is_that_of_the_mean(values: list[float]) -> None:
    found = estimate(values)
    assert found.count == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert found.error == pytest.approx(statistics.stdev(values) / sqrt(len(values)), rel=1e-6, abs=1e-6)


def test_one_value_has_no_error_and_none_no_mean() -> None:
    assert estimate([2.0]).error is None
    for nothing in ([], [1.0, nan]):
        with pytest.raises(InputError, match="no finite mean"):
            estimate(nothing)


@pytest.mark.parametrize(
    "y, outcome, x",
    [
        (60.0, ReadingOutcome.READ, 1.0),
        (65.0, ReadingOutcome.READ, 2.0),  # half the height is half the way in log x: 1, 2, 4
        (70.0, ReadingOutcome.READ, 4.0),
        (59.9, ReadingOutcome.BELOW, None),
        (70.1, ReadingOutcome.ABOVE, None),
    ],
)
def test_readings_lie_on_the_frontier_and_never_beyond_it(
    y: float, outcome: ReadingOutcome, x: float | None
) -> None:
    line = [Point(1, 60), Point(4, 70), Point(5, 65)]  # the last is dominated
    found = equal_reading(Point(8, y), line)
    assert found.outcome is outcome
    assert found.x == (None if x is None else pytest.approx(x))
    assert found.ratio == (None if x is None else pytest.approx(8 / x))


def test_lower_is_better_for_perplexity() -> None:
    found = equal_reading(Point(8, 15.0), [Point(1, 20), Point(4, 10)], Senses(y=Sense.LOWER))
    assert found.x == pytest.approx(2.0)


@given(costs, st.integers(1, 6).map(float), small)
def test_a_reading_is_between_its_neighbours(line: list[Point], x: float, y: float) -> None:
    found = equal_reading(Point(x, y), line)
    as_good = [p.x for p in line if p.y >= y]
    assert (found.outcome is ReadingOutcome.ABOVE) == (not as_good)
    if found.x is not None:
        assert min(p.x for p in line) * (1 - 1e-12) <= found.x <= min(as_good) * (1 + 1e-12)


def test_a_cost_of_nothing_has_no_ratio() -> None:
    with pytest.raises(InputError, match="cost of 0"):
        equal_reading(Point(0, 1), [Point(1, 1)])


@given(st.lists(st.floats(1, 1e6), max_size=30), st.floats(0, 0.5))
def test_groups_are_alike_and_those_left_out_are_not(xs: list[float], tolerance: float) -> None:
    groups = iso_groups(xs, tolerance)
    assert all(
        len(g) > 1 and max(xs[i] for i in g) <= min(xs[i] for i in g) * (1 + tolerance) for g in groups
    )
    members = [i for g in groups for i in g]
    assert len(members) == len(set(members))
    assert [min(xs[i] for i in g) for g in groups] == sorted(min(xs[i] for i in g) for g in groups)


def test_groups_by_hand() -> None:
    assert iso_groups([100, 300, 104, 106, 299], 0.05) == ((0, 2), (4, 1))
