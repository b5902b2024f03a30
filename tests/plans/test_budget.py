from fractions import Fraction
from functools import partial
from itertools import product
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan.plans.budget import Account, Curve, close, close_curves


@st.composite
def roomy(draw: st.DrawFn) -> tuple[list[Account], int]:
    positions = draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    accounts = [Account(100_000, p, Fraction(draw(st.integers(500, 20_000)))) for p in positions]
    near = sum(a.positions * int(a.target) for a in accounts)
    return accounts, near + draw(st.integers(-100, 10_000))


@given(roomy())
def test_what_stays_unspent_is_what_no_whole_weight_can_spend(case: tuple[list[Account], int]) -> None:
    accounts, budget = case
    nnz, left = close(accounts, budget)
    divisor = 0
    for account in accounts:
        divisor = gcd(divisor, account.positions)
    assert left == budget % divisor
    assert sum(n * a.positions for n, a in zip(nnz, accounts, strict=True)) + left == budget
    assert all(0 <= n <= a.capacity for n, a in zip(nnz, accounts, strict=True))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=3), st.integers(0, 60))
def test_small_accounts_never_overspend_or_overfill(layers: list[tuple[int, int]], budget: int) -> None:
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
    assert budget - left == best


@st.composite
def tight(draw: st.DrawFn) -> tuple[list[Account], int]:
    """Small accounts, nearly full or nearly empty, some of which must hold a weight."""
    accounts = [
        Account(c, p, Fraction(draw(st.integers(0, 2 * c)), 2), draw(st.integers(0, 1)))
        for c, p in draw(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 30)), min_size=1, max_size=4))
    ]
    spent = sum(a.positions * a.target for a in accounts)
    return accounts, max(0, int(spent) + draw(st.integers(-20, 20)))


@settings(max_examples=400, deadline=None)
@given(tight())
def test_what_whole_weights_can_spend_is_spent(case: tuple[list[Account], int]) -> None:
    accounts, budget = case
    nnz, left = close(accounts, budget)
    sums = {0}
    for account in accounts:
        counts = range(account.least, account.capacity + 1)
        sums = {s + n * account.positions for s in sums for n in counts}
    possible = [s for s in sums if s <= budget]
    assert sum(n * a.positions for n, a in zip(nnz, accounts, strict=True)) + left == budget
    assert all(a.least <= n <= a.capacity for n, a in zip(nnz, accounts, strict=True))
    assert budget - left == (max(possible) if possible else min(sums))


def test_a_full_layer_gives_a_weight_for_one_with_room() -> None:
    # 51·4 + 9·1: adding to the small layer alone cannot spend the last three
    accounts = [Account(100, 4, Fraction(50)), Account(10, 1, Fraction(10))]
    assert close(accounts, 213) == ((51, 9), 0)
    # 8·6 + 3·4
    assert close([Account(9, 6, Fraction(9)), Account(5, 4, Fraction(2))], 60) == ((8, 3), 0)


def test_remainders_go_where_they_are_largest_and_evenly_where_they_tie() -> None:
    equal = [Account(400, 1, Fraction(199, 2))] * 8
    assert close(equal, 796) == ((100, 99) * 4, 0)
    # thirds of a weight of four layers, with MACs for one of them: 1 of 4
    assert close([Account(9, 3, Fraction(13, 4))] * 4, 39) == ((4, 3, 3, 3), 0)
    # .9 before .6 before .5
    unlike = [Account(9, 1, Fraction(f, 10)) for f in (16, 29, 15)]
    assert close(unlike, 6) == ((2, 3, 1), 0)


def test_what_targets_leave_over_is_spread_as_they_are() -> None:
    # twice what targets spend: twice of each, and not all of it on the first
    assert close([Account(100, 1, Fraction(10)), Account(100, 2, Fraction(20))], 100) == ((20, 40), 0)
    # a layer that is full leaves its share to the others: 80 = 20·1 + 30·2
    assert close([Account(20, 1, Fraction(20)), Account(100, 2, Fraction(20))], 80) == ((20, 30), 0)
    # half of them
    assert close([Account(100, 1, Fraction(10)), Account(100, 2, Fraction(20))], 25) == ((5, 10), 0)


def test_an_exchange_is_shared_as_targets_are() -> None:
    # 91a + 6b = 4 more units of 32 MACs: two steps fewer of 2912 and 31 more of 192, of which a layer of 12 takes few
    large, small = Fraction(248, 3), Fraction(11, 2)
    accounts = [
        Account(182, 2912, large, 1),
        Account(182, 192, large, 1),
        Account(12, 192, small, 1),
        Account(12, 2912, small, 1),
    ]
    nnz, left = close(accounts, 273472)
    assert left == 0
    assert nnz[2] < 10


def test_large_layers_with_few_positions_in_common_close_quickly() -> None:
    # 223·223, 112·112, 55·55 and 1 share no divisor; the layer of one position is full
    accounts = [
        Account(10**6, 49729, Fraction(400_001, 2)),
        Account(10**7, 12544, Fraction(900_003, 3)),
        Account(10**7, 3025, Fraction(1_000_001, 7)),
        Account(1000, 1, Fraction(1000)),
    ]
    budget = int(sum(a.positions * a.target for a in accounts))
    nnz, left = close(accounts, budget)
    assert left == 0
    assert sum(n * a.positions for n, a in zip(nnz, accounts, strict=True)) == budget
    assert all(abs(n - a.target) <= 64 for n, a in zip(nnz[:3], accounts, strict=False))
    # the only room for ones is below: 1000 of them fewer at most
    assert 0 <= nnz[3] <= 1000


def quadratic(a: int, c: int, rank: int) -> int:
    return a * rank + c * rank * rank


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=5),
    st.integers(0, 5000),
)
def test_ranks_of_quadratic_cost_leave_less_than_another_rank_costs(
    layers: list[tuple[int, int, int]], budget: int
) -> None:
    curves = [Curve(20, Fraction(target), partial(quadratic, a, c)) for target, a, c in layers]
    ranks, left = close_curves(curves, budget)
    spent = sum(curve.cost(rank) for curve, rank in zip(curves, ranks, strict=True))
    assert spent + left == budget
    assert all(1 <= rank <= 20 for rank in ranks)
    if left < 0:
        assert ranks == (1,) * len(layers)
    for curve, rank in zip(curves, ranks, strict=True):
        assert rank == 20 or left < curve.cost(rank + 1) - curve.cost(rank)
