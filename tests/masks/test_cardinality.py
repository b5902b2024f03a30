"""Counting masks: against exact integers, fifty-digit arithmetic, and masks written out one by one."""

from itertools import combinations, product
from math import comb, factorial, log2

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan.base.errors import InfeasibleError
from iftplan.masks import NM, cardinality
from iftplan.masks.cardinality import log2_choose, log2_tile_masks, tile_masks

quick = settings(deadline=None, max_examples=150)


@st.composite
def choices(draw: st.DrawFn, largest: int) -> tuple[int, int]:
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n))


@quick
@given(choices(20_000))
def test_log2_choose_agrees_with_exact_integers(case: tuple[int, int]) -> None:
    n, k = case
    assert log2_choose(n, k) == pytest.approx(log2(comb(n, k)), rel=1e-13, abs=1e-300)


@quick
@given(choices(10**14))
def test_log2_choose_agrees_with_fifty_digits(case: tuple[int, int]) -> None:
    n, k = case
    with mpmath.workdps(50):
        exact = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
        assert log2_choose(n, k) == pytest.approx(float(exact / mpmath.log(2)), rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("n", [2050, 10**6, 10**12])
def test_the_two_ways_of_counting_meet_where_one_takes_over(n: int) -> None:
    """C(n, k+1) = C(n, k)·(n-k)/(k+1), across the last exact k."""
    for k in range(1020, 1025):
        step = log2((n - k) / (k + 1))
        assert log2_choose(n, k + 1) == pytest.approx(log2_choose(n, k) + step, rel=1e-13)


@given(choices(10**9))
def test_choosing_what_to_keep_is_choosing_what_to_drop(case: tuple[int, int]) -> None:
    n, k = case
    assert log2_choose(n, k) == log2_choose(n, n - k) >= 0


@pytest.mark.parametrize(("n", "k"), [(3, 4), (3, -1), (0, 1)])
def test_no_more_can_be_chosen_than_there_is(n: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"choose {k} of {n}"):
        log2_choose(n, k)


@pytest.mark.parametrize(
    ("kept", "of", "tiles"), [(2, 4, 90), (1, 2, 2), (3, 4, 24), (4, 4, 1), (3, 6, 297_200)]
)
def test_published_counts_of_transposable_tiles(kept: int, of: int, tiles: int) -> None:
    """2:4 from arXiv 2102.08124; 3:6 from the number of 6×6 matrices with row and column sums 3 (OEIS A001501)."""
    assert tile_masks(of, of, kept) == tiles


@pytest.mark.parametrize("of", range(1, 11))
def test_one_of_m_transposable_is_a_permutation(of: int) -> None:
    assert tile_masks(of, of, 1) == factorial(of)


@pytest.mark.parametrize(("kept", "of"), [(k, m) for m in range(1, 6) for k in range(1, m + 1)])
def test_transposable_tiles_written_out(kept: int, of: int) -> None:
    rows = list(combinations(range(of), kept))
    found = sum(
        all(sum(column in row for row in tile) == kept for column in range(of))
        for tile in product(rows, repeat=of)
    )
    assert tile_masks(of, of, kept) == found


@pytest.mark.parametrize(("kept", "of"), [(1, 12), (3, 12), (6, 12), (11, 12)])
def test_large_tiles_are_estimated_closely(kept: int, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = log2(tile_masks(of, of, kept))
    assert log2_tile_masks(of, kept) == exact
    monkeypatch.setattr(cardinality, "EXACT_TILE", of - 1)
    assert exact < log2_tile_masks(of, kept) < exact + 0.021


def test_tiles_of_every_size_have_an_answer() -> None:
    whole = NM(16, 32, transposable=True).log2_masks(((64, 64),), 64 * 64 // 2)
    assert whole == pytest.approx(4 * log2_tile_masks(32, 16))
    assert 0.82 < whole / (64 * 64) < 0.83  # somewhat less than a bit for each weight
    with pytest.raises(InfeasibleError, match="edge of 14 inputs and 16 outputs is not known"):
        NM(8, 16, transposable=True, padded=True).log2_masks(((30, 16),), 240)


@pytest.mark.parametrize(("kept", "of"), [(1, 8), (3, 8), (2, 7)])
def test_keeping_and_dropping_have_as_many_tiles(kept: int, of: int) -> None:
    assert tile_masks(of, of, kept) == tile_masks(of, of, of - kept)


@pytest.mark.parametrize("n", [10**16, 2**63 + 1, 10**30, 10**60])
@pytest.mark.parametrize("share", [2, 3, 10**9])
def test_sets_larger_than_a_machine_word_agree_with_a_hundred_digits(n: int, share: int) -> None:
    with mpmath.workdps(100):
        exact = mpmath.loggamma(n + 1) - mpmath.loggamma(n // share + 1) - mpmath.loggamma(n - n // share + 1)
        assert log2_choose(n, n // share) == pytest.approx(float(exact / mpmath.log(2)), rel=1e-12)
    assert log2_choose(n, 3) == pytest.approx(log2(n * (n - 1) * (n - 2) // 6), rel=1e-13)
