"""Budgets, and how they are closed to the MAC: whole weights whose MACs add up to exactly what is left to spend."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import gcd

from iftplan.base.errors import InputError
from iftplan.base.units import count, decimal_text, fraction, parse_count, parse_fraction
from iftplan.families.integer_search import largest_integer

_MOST_SUMS = 2**26
"""How many sums a search may tell apart: 8 MB of bits for each distinct number of positions."""


@dataclass(frozen=True, slots=True)
class Budget:
    """MACs that a plan may spend in its scope: a number of them, or a multiple of the dense model's.

    Attributes:
        times: the multiple of the dense model's MACs.
        macs: the number of MACs; None where a multiple says it.
    """

    times: Fraction = Fraction(1)
    macs: int | None = None

    def __str__(self) -> str:
        return f"{decimal_text(self.times)}x" if self.macs is None else f"{count(self.macs)} MACs"

    def of(self, dense: int) -> int:
        """MACs of the budget where the dense model costs this many; a part of a MAC is not spent."""
        return int(self.times * dense) if self.macs is None else self.macs

    @property
    def written(self) -> str | int:
        """Value that documents hold: a fraction such as "1/2", or a number of MACs."""
        return fraction(self.times) if self.macs is None else self.macs


def parse_budget(text: str | int) -> Budget:
    """Read a budget: `0.5x`, `3/4x` or `50%x` of the dense model's MACs, or MACs such as `400M` and `1.2GFLOPs`.

    Raises:
        InputError: none of these, or not above zero.

    Example:
        >>> parse_budget("0.5x"), parse_budget("400M").macs
        (Budget(times=Fraction(1, 2), macs=None), 400000000)
    """
    written = str(text).strip()
    if written.lower().endswith(("x", "×")):
        times = parse_fraction(written[:-1], "budget")
        if times <= 0:
            raise InputError(f"budget {written} leaves nothing to spend. Give one above 0x, such as 0.5x.")
        return Budget(times)
    try:
        return Budget(macs=parse_count(written))
    except InputError as error:
        hint = " To give it relative to the dense model, write 0.5x."
        raise InputError(f"{error}{hint}") from error


@dataclass(frozen=True, slots=True)
class Account:
    """Maskable layer with the numbers of weights that it can keep, and the MACs of each.

    Attributes:
        capacity: how many weights it can hold.
        positions: what one of them costs.
        target: how many it should get.
        least: how many it holds in any case.
    """

    capacity: int
    positions: int
    target: Fraction
    least: int = 0


def close(accounts: Sequence[Account], budget: int) -> tuple[tuple[int, ...], int]:
    """Numbers of weights near the targets that spend as much of the budget as whole weights can.

    Targets are rounded down, then up where the largest remainders are. What single weights do not spend is spent by an
    exchange: some more in one layer, some fewer in another.

    Returns:
        nnz of each account, and the MACs that no choice of whole weights can spend: less than the greatest common
        divisor of the positions, unless layers are full. Negative where even the least costs more than the budget.

    Example:
        >>> close([Account(100, 6, Fraction(21, 2)), Account(100, 10, Fraction(5))], 113)
        ((12, 4), 1)
        >>> close([Account(100, 4, Fraction(50)), Account(10, 1, Fraction(10))], 213)
        ((51, 9), 0)
    """
    targets = [min(Fraction(account.capacity), account.target) for account in accounts]
    nnz = [max(a.least, int(target)) for a, target in zip(accounts, targets, strict=True)]
    left = budget - _cost(accounts, nnz)
    if not 0 <= left < sum(account.positions for account in accounts):
        targets = _scaled(accounts, targets, budget)
        nnz = [max(a.least, int(target)) for a, target in zip(accounts, targets, strict=True)]
        left = budget - _cost(accounts, nnz)
    left = _round_up(accounts, targets, nnz, left)
    left = _fill(accounts, nnz, left)
    left = _exchange(accounts, targets, nnz, left)
    return tuple(nnz), left


@dataclass(frozen=True, slots=True)
class Curve:
    """Layer whose MACs are not proportional to its rank.

    Attributes:
        capacity: the largest rank.
        target: which rank it should get, before rounding.
        cost: rank → MACs, growing.
    """

    capacity: int
    target: Fraction
    cost: Callable[[int], int]

    def rank(self, times: Fraction) -> int:
        """The whole rank below so many times the target; 1 at least."""
        return max(1, min(self.capacity, int(times * self.target)))


def close_curves(curves: Sequence[Curve], budget: int) -> tuple[tuple[int, ...], int]:
    """Whole ranks that spend as much of the budget as fits, by search.

    The largest factor is looked for at which all targets together, rounded down, stay within the budget. Then ranks rise by
    one where the remainders are largest, and what is left goes to the layers in the order of what another rank costs them.

    Returns:
        rank of each layer, and the MACs that stay unspent: fewer than another rank costs, unless layers are full. Negative
        where even ranks of 1 cost more than the budget.

    Example:
        >>> close_curves([Curve(9, Fraction(2), lambda r: r * r), Curve(9, Fraction(2), lambda r: 10 * r)], 50)
        ((4, 3), 4)

    """

    def spent(ranks: Sequence[int]) -> int:
        return sum(curve.cost(rank) for curve, rank in zip(curves, ranks, strict=True))

    def at(times: Fraction) -> list[int]:
        return [curve.rank(times) for curve in curves]

    low, high = Fraction(0), Fraction(1)
    while spent(at(high)) <= budget and any(r < c.capacity for r, c in zip(at(high), curves, strict=True)):
        low, high = high, 2 * high
    while at(low) != at(high) and high - low > _FINEST:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(at(middle)) <= budget else (low, middle)
    ranks = at(high) if spent(at(high)) <= budget else at(low)
    left = budget - spent(ranks)
    for i in sorted(range(len(curves)), key=lambda i: (ranks[i] - high * curves[i].target, i)):
        left -= _raise(curves[i], ranks, i, left, 1)
    for i in sorted(
        range(len(curves)), key=lambda i: curves[i].cost(ranks[i]) - curves[i].cost(ranks[i] + 1)
    ):
        left -= _raise(curves[i], ranks, i, left, curves[i].capacity)
    return tuple(ranks), left


_FINEST = Fraction(1, 2**32)
"""Step of the factor on all targets below which no other is tried."""


def _raise(curve: Curve, ranks: list[int], i: int, left: int, most: int) -> int:
    """Raise a rank by as much as fits, up to `most`; the MACs that this costs."""
    before = curve.cost(ranks[i])
    high = min(curve.capacity, ranks[i] + most)
    ranks[i] = max(
        ranks[i], min(high, largest_integer(ranks[i], lambda rank: curve.cost(rank) - before <= left))
    )
    return curve.cost(ranks[i]) - before


def _cost(accounts: Sequence[Account], nnz: Sequence[int]) -> int:
    return sum(n * account.positions for n, account in zip(nnz, accounts, strict=True))


def _scaled(accounts: Sequence[Account], targets: Sequence[Fraction], budget: int) -> list[Fraction]:
    """Targets in the same proportions that spend the budget; what an account cannot hold goes to the others."""
    full: set[int] = set()
    while True:
        free = [i for i in range(len(accounts)) if i not in full and targets[i]]
        asked = sum((targets[i] * accounts[i].positions for i in free), Fraction(0))
        left = budget - sum(accounts[i].capacity * accounts[i].positions for i in full)
        factor = max(Fraction(0), left / asked) if asked else Fraction(0)
        over = {i for i in free if targets[i] * factor > accounts[i].capacity}
        if not over:
            return [
                Fraction(account.capacity) if i in full else target * factor
                for i, (account, target) in enumerate(zip(accounts, targets, strict=True))
            ]
        full |= over


def _round_up(accounts: Sequence[Account], targets: Sequence[Fraction], nnz: list[int], left: int) -> int:
    """One weight more where the remainders are largest; evenly spaced where remainders tie."""
    ranked = sorted(
        (-float(remainder), -accounts[i].positions, i)
        for i, target in enumerate(targets)
        if (remainder := target - nnz[i]) > 0
    )
    for (_, negative), tied in groupby(ranked, key=lambda item: item[:2]):
        chosen = [i for _, _, i in tied]
        some = max(0, min(len(chosen), left // -negative))
        for i in _spaced(chosen, some):
            nnz[i] += 1
        left += some * negative
    return left


def _spaced(items: Sequence[int], some: int) -> Iterable[int]:
    """`some` of the items, evenly spaced, the first among them."""
    total = len(items)
    return (item for i, item in enumerate(items) if -(-(i + 1) * some // total) > -(-i * some // total))


def _fill(accounts: Sequence[Account], nnz: list[int], left: int) -> int:
    """What targets do not say: as many whole weights as fit, or must go, most positions first."""
    for i in sorted(range(len(accounts)), key=lambda i: -accounts[i].positions):
        if not left:
            break
        step = left // accounts[i].positions  # negative where targets overspend
        step = max(accounts[i].least - nnz[i], min(step, accounts[i].capacity - nnz[i]))
        nnz[i] += step
        left -= step * accounts[i].positions
    return left


@dataclass(frozen=True, slots=True)
class _Coin:
    """All accounts of one number of positions, which whole weights can be moved between.

    Attributes:
        value: positions, in units of the greatest common divisor.
        accounts: which they are.
        fewer: weights that can be taken away.
        more: weights that can be added.
    """

    value: int
    accounts: tuple[int, ...]
    fewer: int
    more: int

    def limited(self, most: int) -> _Coin:
        """The same, where no more than `most` weights may move."""
        return _Coin(self.value, self.accounts, min(self.fewer, most), min(self.more, most))


def _exchange(accounts: Sequence[Account], targets: Sequence[Fraction], nnz: list[int], left: int) -> int:
    """Spend the rest by adding weights in some accounts and taking them away in others; what cannot be spent.

    A bounded subset sum over the distinct numbers of positions, with bits of a whole number for the sums. It begins with one
    weight each and doubles. It ends where the greatest common divisor forbids more, or where more weights change nothing:
    steps that lead from one sum to another can be ordered so that the sums between stay within twice the largest step,
    and a sum that comes twice is a detour, so no more steps are needed than there are such sums (Steinitz's lemma).
    """
    coins, unit = _coins(accounts, nnz)
    want = left // unit
    if not coins or not want:
        return left
    enough = 2 * coins[-1].value + abs(want)
    found: tuple[int, tuple[int, ...]] | None = None
    most = 1
    while True:
        limited = [coin.limited(most) for coin in coins]
        if sum((coin.fewer + coin.more) * coin.value for coin in limited) > _MOST_SUMS:
            break
        better = _most_spent(limited, want)
        found = better or found
        exhausted = most >= enough or limited == coins
        if exhausted or (found and found[0] == want):
            break
        most *= 2
    if found is None:
        return left
    spent, moves = found
    for coin, move in zip(coins, moves, strict=True):
        _move(accounts, targets, nnz, coin.accounts, move)
    return left - spent * unit


def _coins(accounts: Sequence[Account], nnz: Sequence[int]) -> tuple[list[_Coin], int]:
    """Distinct numbers of positions, fewest first, and the unit that they are multiples of."""
    alike: dict[int, list[int]] = {}
    for i, account in enumerate(accounts):
        if account.capacity > account.least:
            alike.setdefault(account.positions, []).append(i)
    unit = gcd(*alike) or 1
    coins = [
        _Coin(
            positions // unit,
            tuple(members),
            sum(nnz[i] - accounts[i].least for i in members),
            sum(accounts[i].capacity - nnz[i] for i in members),
        )
        for positions, members in sorted(alike.items())
    ]
    return coins, unit


def _most_spent(coins: Sequence[_Coin], want: int) -> tuple[int, tuple[int, ...]] | None:
    """The largest sum up to `want`, and how many weights of each coin make it; None where all sums are larger."""
    reachable, sums = [1], 1  # bit s: the sum s can be made, counted from as few weights as possible
    for coin in coins:
        together, part = coin.fewer + coin.more, 1
        while together:
            part = min(part, together)
            sums |= sums << part * coin.value
            together -= part
            part *= 2
        reachable.append(sums)
    lowest = -sum(coin.fewer * coin.value for coin in coins)
    if want < lowest:
        return None
    at = (sums & ((1 << want - lowest + 1) - 1)).bit_length() - 1
    spent, moves = at + lowest, []
    for coin, before in zip(reversed(coins), reversed(reachable[:-1]), strict=True):
        bits = before.to_bytes(before.bit_length() // 8 + 1, "little")
        for move in sorted(range(-coin.fewer, coin.more + 1), key=abs):
            place = at - (coin.fewer + move) * coin.value
            if 0 <= place < 8 * len(bits) and bits[place // 8] >> place % 8 & 1:
                moves.append(move)
                at = place
                break
    return spent, tuple(reversed(moves))


def _move(
    accounts: Sequence[Account], targets: Sequence[Fraction], nnz: list[int], among: Iterable[int], move: int
) -> None:
    """Add weights, or take them away, each where an account stays nearest to its target, as a share of that."""
    sign = 1 if move > 0 else -1
    shares = {i: 1 / max(1.0, float(targets[i])) for i in among}
    heap = [(sign * float(nnz[i] - targets[i]) * share, i) for i, share in shares.items()]
    heapq.heapify(heap)
    for _ in range(abs(move)):
        distance, i = heapq.heappop(heap)
        while not accounts[i].least <= nnz[i] + sign <= accounts[i].capacity:
            distance, i = heapq.heappop(heap)
        nnz[i] += sign
        heapq.heappush(heap, (distance + shares[i], i))
