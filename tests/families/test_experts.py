"""Mixtures of experts: the equation, its solution by SymPy, and the notation."""

from __future__ import annotations

from fractions import Fraction
from math import comb, log2

import pytest
import sympy

from iftplan.base.errors import InputError
from iftplan.families.transforms.experts import Mixture, cost, parse_mixture, width


def test_sympy_solves_the_equation_for_the_width_of_an_expert() -> None:
    m, n, w, experts, met, shared, g, matrices = symbols = sympy.symbols("m n w E k h g G", positive=True)
    assert len(symbols) == 8
    equation = cost(m, w, experts, met, shared, matrices) - g * m * n
    (found,) = sympy.solve(equation, w)
    assert sympy.simplify(found - width(n, g, experts, met, shared, matrices)) == 0


def test_one_expert_that_every_token_meets_is_the_dense_block_but_for_the_router() -> None:
    assert cost(768, 3072, 1, 1, 0, 2) == 2 * 768 * 3072 + 768
    assert width(Fraction(3072), 2, 1, 1, 0, 2) == 3072 - Fraction(1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "experts:8x2",
        "experts:64x6+2",
        "experts:8x1:capacity=1.25",
        "experts:40x5:relu:balance=0",
        "experts:3x3:balance=1/3",
    ],
)
def test_a_mixture_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_mixture(text)) == text


@pytest.mark.parametrize("number", ["1.333333333", "10.33333333", "999999999.999999999/999999999"])
def test_long_decimals_can_be_read_back(number: str) -> None:
    found = parse_mixture(f"experts:8x2:capacity={number}:balance=0.000000001")
    assert parse_mixture(str(found)) == found


def test_a_mixture_is_read_in_any_case() -> None:
    assert parse_mixture(" Experts:8X2:SOFTMAX ") == Mixture(8, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("experts", "does not say how many experts"),
        ("experts:8", "does not say how many experts"),
        ("experts:8x9", "between one and all of them"),
        ("experts:0x0", "at least one expert"),
        ("experts:8x2:top=3", "'top=3' is no option"),
        ("experts:8x2:capacity=-1", "is no option"),
        ("experts:8x2:capacity=0", "capacity factor is above 0"),
        ("experts:8x2:relu:capacity=1", "no capacity"),
        ("experts:8x2:locality=1", "losses of a ReLU router"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_mixture(text)


def test_capacity_is_rounded_up_for_each_expert() -> None:
    padded = Mixture(8, 2, capacity=Fraction(5, 4))
    assert padded.rows_per_expert(197) == 62  # 2·197/8·1.25 = 61.56…
    assert padded.rows(197) == 8 * 62
    assert Mixture(8, 2).rows(197) == 2 * 197


def test_a_token_chooses_k_of_e_experts() -> None:
    assert Mixture(8, 2).log2_choices == pytest.approx(log2(comb(8, 2)))
    assert Mixture(8, 8).log2_choices == 0
    assert Mixture(40, 5, router="relu").log2_choices == 40
