"""Where adapters can be placed: counted against the formulas, and drawn so that all choices are equally likely."""

from __future__ import annotations

from collections import Counter
from math import comb, log2

import pytest

from iftplan.base.errors import InputError
from iftplan.plans.search.adapters import (
    Placement,
    adapter_macs,
    adapter_weights,
    likeliest_placements,
    placement_bits,
    placements,
    random_placements,
)


@pytest.mark.parametrize("blocks", [1, 2, 5, 12, 24])
def test_there_are_as_many_placements_as_pairs_of_blocks(blocks: int) -> None:
    found = Counter(one.kind for one in placements(blocks))
    half = blocks * (blocks - 1) // 2
    assert (found["usual"], found["long-range"], found["recurrent"]) == (blocks, half, half)
    assert len(set(placements(blocks))) == blocks**2
    for adapters in range(blocks + 1):
        assert placement_bits(blocks, adapters) == pytest.approx(log2(comb(blocks**2, adapters)))
        assert placement_bits(blocks, adapters, ["usual"]) == pytest.approx(log2(comb(blocks, adapters)))


def test_costs_are_those_of_two_factors() -> None:
    """Three adapters of rank 8 between 64 channels, one of them recurrent, in three passes: 3 + 3 + 2 runs."""
    chosen = (Placement(0, 0), Placement(0, 2), Placement(2, 0))
    assert adapter_weights(64, 8, 3) == 3 * (64 * 8 + 8 * 64)
    assert adapter_macs(chosen, 64, 8, 3) == 8 * (64 * 8 + 8 * 64)
    assert adapter_macs(chosen[:2], 64, 8) == 2 * (64 * 8 + 8 * 64)
    with pytest.raises(InputError, match="give 2 passes"):
        adapter_macs(chosen, 64, 8, 1)


def test_random_placements_follow_from_the_seed_and_reach_every_choice() -> None:
    assert random_placements(12, 4, 7) == random_placements(12, 4, 7)
    seen = Counter(random_placements(2, 2, seed) for seed in range(600))
    assert len(seen) == comb(4, 2)
    assert min(seen.values()) > 60  # 100 of each on average, with a deviation of 9
    only = random_placements(6, 5, 0, ["long-range"])
    assert {one.kind for one in only} == {"long-range"}


def test_the_highest_scores_are_chosen() -> None:
    scores = {Placement(0, 0): 3.0, Placement(0, 1): 7.0, Placement(1, 0): 7.0, Placement(1, 1): 1.0}
    assert likeliest_placements(scores, 1) == (Placement(0, 1),)
    assert likeliest_placements(scores, 3) == (Placement(0, 0), Placement(0, 1), Placement(1, 0))


def test_more_adapters_than_places_are_refused() -> None:
    with pytest.raises(InputError, match="the most is 4"):
        placement_bits(2, 5)
    with pytest.raises(InputError, match="2 usual places; the most is 2"):
        random_placements(2, 3, 0, ["usual"])
    with pytest.raises(InputError, match="cannot be placed at 1 places"):
        likeliest_placements({Placement(0, 0): 1.0}, 2)


def test_kinds_may_be_one_string_and_are_checked() -> None:
    assert placements(12, "usual") == placements(12, ["usual"])  # type: ignore[arg-type]
    assert placements(12, "usual, recurrent") == placements(12, ["usual", "recurrent"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Did you mean 'long-range'"):
        placements(12, ["usual", "long_range"])  # type: ignore[list-item]
