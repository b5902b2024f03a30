from fractions import Fraction
from itertools import product
from math import gcd

from hypothesis import given
from hypothesis import strategies as st

from iftplan.budget import Account, close


@st.composite
def roomy(draw):
    positions = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    accounts = [Account(100_000, p, Fraction(draw(st.integers(500, 20_000)))) for p in positions]
    near = sum(a.positions * int(a.target) for a in accounts)
    return accounts, near + draw(st.integers(-100, 10_000))


@given(roomy())
def test_what_stays_unspent_is_what_no_whole_weight_can_spend(case):
    accounts, budget = case
    nnz, left = close(accounts, budget)
    divisor = 0
    for account in accounts:
        divisor = gcd(divisor, account.positions)
    assert left == budget % divisor
    assert sum(n * a.positions for n, a in zip(nnz, accounts, strict=True)) + left == budget
    assert all(0 <= n <= a.capacity for n, a in zip(nnz, accounts, strict=True))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=3), st.integers(0, 60))
def test_small_accounts_never_overspend_or_overfill(layers, budget):
    accounts = [Account(capacity, positions, Fraction(capacity, 2)) for capacity, positions in layers]
    nnz, left = close(accounts, budget)
    assert left >= 0
    assert sum(n * a.positions for n, a in zip(nnz, accounts, strict=True)) + left == budget
    assert all(0 <= n <= a.capacity for n, a in zip(nnz, accounts, strict=True))
    best = max(
        spent
        for choice in product(*(range(c + 1) for c, _ in layers))
        if (spent := sum(n * p for n, (_, p) in zip(choice, layers, strict=True))) <= budget
    )
    assert budget - left <= best
