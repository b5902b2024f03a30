from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.models.polynomial import Polynomial, Term

names = st.sampled_from("abc")
terms = st.builds(
    Term,
    st.fractions(min_value=-5, max_value=5, max_denominator=4),
    st.dictionaries(names, st.integers(1, 3)).map(lambda p: tuple(sorted(p.items()))),
)
polynomials = st.lists(terms, max_size=4).map(Polynomial.of)
sizes = st.fixed_dictionaries({n: st.integers(0, 99) for n in "abc"})


@given(polynomials, polynomials, sizes)
def test_arithmetic_commutes_with_evaluation(p: Polynomial, q: Polynomial, at: dict[str, int]) -> None:
    whole = Polynomial.constant(12)  # clears every denominator up to 4
    p, q = p * whole, q * whole
    assert (p + q).at(at) == p.at(at) + q.at(at)
    assert (p * q).at(at) == p.at(at) * q.at(at)


def test_a_fraction_is_not_silently_rounded() -> None:
    half = Polynomial.symbol("c") * Polynomial.constant(Fraction(1, 2))
    assert half.at({"c": 6}) == 3
    with pytest.raises(ValueError, match="5/2"):
        half.at({"c": 5})
