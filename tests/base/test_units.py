"""Numbers as people write and read them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base import units
from iftplan.base.errors import InputError

fractions = st.fractions(0, 1, max_denominator=10**6).filter(lambda value: value < 1)
counts = st.integers(0, 10**17)


@given(fractions)
def test_every_sparsity_reads_back_from_every_way_of_writing_it(value: Fraction) -> None:
    assert units.parse_sparsity(units.decimal_text(value)) == value
    assert units.parse_sparsity(units.fraction(value)) == value
    assert units.parse_sparsity(value) == value


@given(st.integers(0, 99_999))
def test_decimals_percentages_and_floats_are_read_exactly(n: int) -> None:
    expected = Fraction(n, 100_000)
    assert units.parse_sparsity(f"0.{n:05}") == expected
    assert units.parse_sparsity(f"{n / 1000:.3f}%") == expected
    assert units.parse_sparsity(f" +{n}/100000 ") == expected
    if n >= 10:  # smaller ones print as 1e-05
        assert units.parse_sparsity(n / 100_000) == expected


def test_a_float_means_its_decimal() -> None:
    assert units.parse_sparsity(0.9) == Fraction(9, 10) != Fraction(0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1", "0.99 leaves one weight of a hundred"),
        ("1.0", "0.99 leaves one weight of a hundred"),
        ("100%", "0.99 leaves one weight of a hundred"),
        ("-0.1", "The nearest sparsity is 0."),
        ("-1/4", "The nearest sparsity is 0."),
        ("75", "Did you mean 75%, which is 0.75?"),
        ("90", "Did you mean 90%, which is 0.9?"),
        ("150", "0.99 leaves one weight of a hundred"),
        ("nan", "write it as 0.75, 3/4 or 75%"),
        ("inf", "write it as 0.75, 3/4 or 75%"),
        ("1e-1", "write it as 0.75, 3/4 or 75%"),
        ("0,75", "write it as 0.75, 3/4 or 75%"),
        ("3/0", "write it as 0.75, 3/4 or 75%"),
        ("3/4%", "write it as 0.75, 3/4 or 75%"),
        ("half", "write it as 0.75, 3/4 or 75%"),
        ("", "write it as 0.75, 3/4 or 75%"),
        (float("nan"), "write it as 0.75, 3/4 or 75%"),
    ],
)
def test_a_sparsity_that_cannot_be_says_what_was_given_and_what_can_be(text: str | float, says: str) -> None:
    with pytest.raises(InputError) as caught:
        units.parse_sparsity(text)
    assert str(text) in str(caught.value)
    assert says in str(caught.value)


@given(counts.filter(bool))
def test_every_budget_reads_back(macs: int) -> None:
    assert units.parse_count(str(macs)) == macs
    assert units.parse_count(units.count(macs)) == macs
    assert units.parse_count(f"{macs} MACs") == macs
    assert units.parse_count(f"{2 * macs}flops") == macs


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("560M", 560 * 10**6),
        ("1.8G", 18 * 10**8),
        ("1.8 GMACs", 18 * 10**8),
        ("2B", 2 * 10**9),
        ("3T", 3 * 10**12),
        ("1.2GFLOPs", 6 * 10**8),
        ("1 flop", None),
        ("0.5", None),
        ("0", None),
        ("-5M", None),
        ("5X", None),
        ("lots", None),
        ("1e9", None),
        ("", None),
    ],
)
def test_budgets(text: str, macs: int | None) -> None:
    if macs is not None:
        assert units.parse_count(text) == macs
        return
    with pytest.raises(InputError) as caught:
        units.parse_count(text)
    assert repr(text) in str(caught.value)
    assert "write 560M" in str(caught.value) or "positive whole number of MACs" in str(caught.value)


@given(counts)
def test_a_short_count_is_right_to_four_figures(macs: int) -> None:
    number, _, prefix = units.abbreviate(macs).partition(" ")
    assert ("e" in number) == (macs >= 10**15)
    scale = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}[prefix]
    assert abs(float(number) * scale - macs) <= 0.5e-3 * macs


@given(st.fractions(max_denominator=10**9))
def test_exact_forms_lose_nothing(value: Fraction) -> None:
    assert Fraction(units.fraction(value)) == value
    assert "/" in units.fraction(value)


def test_conventions_name_themselves() -> None:
    assert [(c.value, c.per_mac, c.unit) for c in units.Convention] == [
        ("mac", 1, "MACs"),
        ("flop", 2, "FLOPs"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(Fraction(3, 4), "0.75"), (Fraction(1, 3), "1/3"), (Fraction(0), "0"), (Fraction(1, 10**6), "0.000001")],
)
def test_plain_numbers(value: Fraction, text: str) -> None:
    assert units.decimal_text(value) == text
