from fractions import Fraction
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InfeasibleError
from iftplan.masks.distributions import DensityLayer, Distribution, densities, parameter_budget

SHAPES = ((2, 4), (3, 6), (4, 6, 2))  # (n_in, n_out, kernel): the published vector's (2, 4, 6)


def sparsities(
    sparsity: str, distribution: Distribution, power: int = 1, floor_zeros: bool = False
) -> list[float]:
    shares = [DensityLayer(str(s), s, prod(s)) for s in SHAPES]
    budget = parameter_budget(shares, Fraction(sparsity), floor_zeros=floor_zeros)
    return [float(1 - d) for d in densities(shares, budget, distribution, power)]


@pytest.mark.parametrize(
    ("sparsity", "distribution", "power", "floor_zeros", "expected"),
    [
        ("0.5", Distribution.ERK, 1, False, (0, 0.3095, 0.6548)),
        ("0.8", Distribution.ERK, 1, False, (0.5889, 0.7259, 0.8630)),
        ("0.5", Distribution.ERK, 2, False, (0, 0.0333, 0.7583)),
        ("0.5", Distribution.ER, 1, False, (0.2071, 0.4714, 0.5595)),
        ("0.8", Distribution.ERK, 1, True, (0.5556, 0.7037, 0.8519)),
        ("0.5", Distribution.UNIFORM, 1, False, (0.5, 0.5, 0.5)),
    ],
)
def test_published_vectors(
    sparsity: str, distribution: Distribution, power: int, floor_zeros: bool, expected: tuple[float, ...]
) -> None:
    assert sparsities(sparsity, distribution, power, floor_zeros) == pytest.approx(expected, abs=5e-5)


shares = st.lists(
    st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 5)).map(
        lambda s: DensityLayer(str(s), s, prod(s))
    ),
    min_size=1,
    max_size=8,
)


@given(shares, st.fractions(0, 1), st.sampled_from(Distribution))
def test_densities_spend_the_budget_exactly_and_never_exceed_one(
    layers: list[DensityLayer], part: Fraction, distribution: Distribution
) -> None:
    budget = part * sum(share.cost for share in layers)
    if not budget:
        with pytest.raises(InfeasibleError):
            densities(layers, budget, distribution)
        return
    result = densities(layers, budget, distribution)
    assert sum(d * share.cost for d, share in zip(result, layers, strict=True)) == budget
    assert all(0 <= d <= 1 for d in result)


def test_a_budget_beyond_density_one_is_refused_by_name() -> None:
    with pytest.raises(InfeasibleError, match="conv"):
        densities([DensityLayer("conv", (2, 2), 4)], Fraction(5), Distribution.ERK)
