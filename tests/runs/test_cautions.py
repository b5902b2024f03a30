"""Doubts about a run: each sentence where it belongs, and none about what the papers do."""

from __future__ import annotations

import re
from math import cos, pi
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.runs.cautions import schedule_cautions, weight_cautions
from iftplan.runs.schedules import Updates

STEPS = 10_000


def cosine(step: int) -> float:
    return 0.05 * (1 + cos(pi * step / STEPS))


def warmed(step: int) -> float:
    return min(1.0, step / 2000) * cosine(step)


def test_the_recipe_of_rigl_is_not_doubted() -> None:
    assert schedule_cautions(Updates(end=7500), STEPS, rate=cosine) == []
    assert schedule_cautions(Updates(end=7500), STEPS, rate=warmed) == []


@pytest.mark.parametrize(
    ("updates", "options", "says"),
    [
        (Updates(end=7500, interval=700), {}, "change 10 times in 10 000 steps"),
        (Updates(end=7500, interval=7000), {}, "change once in 10 000 steps"),
        (Updates(end=7500, interval=20_000), {}, "never change: the first update would be at step 20 000"),
        (Updates(end=90_000, interval=10_001), {}, "never change"),
        (Updates(end=9000, begin=9000), {}, "never change"),
        (
            Updates(end=20_000),
            {},
            "ends at step 20 000, but the run ends after 10 000 steps, so masks still change",
        ),
        (Updates(end=4000), {}, "stop changing at step 4 000 of 10 000, in the first half"),
        (Updates(end=10_000), {"arrives": True}, "the plan's sparsity is never reached"),
        (Updates(end=10_000), {"rate": cosine}, "when the learning rate is below 1% of its peak"),
    ],
)
def test_each_doubt_is_said(updates: Updates, options: dict[str, Any], says: str) -> None:
    assert says in " ".join(schedule_cautions(updates, STEPS, **options))


def test_gradual_pruning_may_end_early_and_its_end_is_an_update() -> None:
    assert schedule_cautions(Updates(end=3000), STEPS, arrives=True) == []
    [said] = schedule_cautions(Updates(end=3000, interval=5000), STEPS, arrives=True)
    assert "change once" in said


def test_steps_that_are_counted_from_one() -> None:
    """The paper's code updates one step earlier, and as often."""
    assert schedule_cautions(Updates(end=7500, count_from=1), STEPS, rate=cosine) == []
    assert schedule_cautions(Updates(end=7500, count_from=1), STEPS, arrives=True) == []
    [said] = schedule_cautions(Updates(end=7500, interval=7000, count_from=1), STEPS)
    assert "change once" in said


def test_a_warm_up_is_no_vanished_rate() -> None:
    """The rate is faint at the start too, and that is as it should be."""
    assert schedule_cautions(Updates(end=7500, interval=10), STEPS, rate=lambda t: max(t, 1) / STEPS) == []
    falling = schedule_cautions(Updates(end=7500, interval=10), STEPS, rate=lambda t: 0.5 ** (t / 100))
    assert "from step 670 on" in " ".join(falling)


@given(
    st.integers(1, 300),
    st.integers(1, 400),
    st.integers(0, 300),
    st.booleans(),
    st.integers(1, 500),
    st.booleans(),
)
def test_the_number_of_updates_is_the_one_that_a_loop_sees(
    interval: int, end: int, begin: int, at_end: bool, steps: int, arrives: bool
) -> None:
    updates = Updates(end=end, interval=interval, begin=min(begin, end), at_end=at_end)
    seen = sum(updates.due(t) or (arrives and t == end) for t in range(steps))
    said = " ".join(schedule_cautions(updates, steps, arrives=arrives))
    assert ("never change" in said) == (seen == 0)
    assert ("change once " in said) == (seen == 1)
    for times in range(2, 20):
        assert (f"change {times} times " in said) == (seen == times)


@given(st.integers(100, 5000), st.integers(1, 5000), st.booleans())
def test_the_interval_that_is_advised_gives_twenty(steps: int, interval: int, arrives: bool) -> None:
    """Advice that one follows and is warned again is no advice."""
    updates = Updates(end=3 * steps // 4, interval=interval)
    said = " ".join(schedule_cautions(updates, steps, arrives=arrives))
    if "An interval of" in said:
        advice = said.split("An interval of ")[1]
        interval, times = (
            int(part.replace(" ", "")) for part in re.findall(r"\d[\d ]*(?= step| update)", advice)[:2]
        )
        followed = Updates(end=updates.end, interval=interval)
        due = [t for t in range(steps) if followed.due(t) or (arrives and t == updates.end)]
        assert times == len(due)
        assert "An interval of 1 steps" not in said
        better = schedule_cautions(followed, steps, arrives=arrives)
        assert not [s for s in better if "change" in s and "stop" not in s]


def test_layers_without_weights_and_outputs_without_weights() -> None:
    assert weight_cautions({"a": 3, "b": 0}) == ["Every weight of b is pruned: nothing passes through it."]
    assert weight_cautions({"a": 3}, {"a": (3, 8)}) == []
    [said] = weight_cautions({"a": 3, "b": 0}, {"a": (3, 8), "b": (8, 8)})
    assert said.startswith("Every weight of b")
    assert weight_cautions({"a": 3}, {"a": (5, 8)}) == [
        "5 of 8 outputs of a have no weight left; constant fan-in masks keep every output alive."
    ]
