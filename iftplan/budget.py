"""Closing a budget to the MAC: whole weights whose MACs add up to exactly what is left to spend."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd


@dataclass(frozen=True, slots=True)
class Account:
    """One maskable layer: how many weights it can hold, what one of them costs, and how many it should get."""

    capacity: int
    positions: int
    target: Fraction


def close(accounts: Sequence[Account], budget: int) -> tuple[tuple[int, ...], int]:
    """Whole weights near the targets that spend the budget.

    Returns:
        nnz of each account, and the MACs that no choice of whole weights can spend: less than the greatest
        common divisor of the positions, unless layers are full.

    Example:
        >>> close([Account(100, 6, Fraction(21, 2)), Account(100, 10, Fraction(5))], 113)
        ((7, 7), 1)
    """
    nnz = [min(account.capacity, int(account.target)) for account in accounts]
    left = budget - sum(n * account.positions for n, account in zip(nnz, accounts, strict=True))
    for i in sorted(range(len(accounts)), key=lambda i: -accounts[i].positions):
        step = left // accounts[i].positions  # negative where targets overspend
        added = max(-nnz[i], min(step, accounts[i].capacity - nnz[i]))
        nnz[i] += added
        left -= added * accounts[i].positions
    if left:
        left = _exchange(accounts, nnz, left)
    return tuple(nnz), left


def _exchange(accounts: Sequence[Account], nnz: list[int], left: int) -> int:
    """Spend the rest by adding single weights in some layers and taking cheap ones away in another.

    Works on remainders modulo the cheapest position count: a breadth-first search finds the fewest weights
    to add so that what is then overspent is a whole number of the cheapest layer's weights.
    """
    cheap = min(range(len(accounts)), key=lambda i: (accounts[i].positions, -accounts[i].capacity))
    unit = accounts[cheap].positions
    coins = _coins(accounts, nnz, unit, cheap)
    came_from: dict[int, tuple[int, int]] = {}
    reached, queue = {0}, deque([0])
    while queue:
        residue = queue.popleft()
        for coin, value in coins:
            following = (residue + value) % unit
            if following not in reached:
                reached.add(following)
                came_from[following] = (residue, coin)
                queue.append(following)
    step = gcd(unit, *(value for _, value in coins))  # no other remainder can be reached
    for unspent in range(left % step, left % unit + 1, step):
        residue = (left - unspent) % unit
        if residue in reached:
            added: dict[int, int] = {}
            while residue:
                residue, coin = came_from[residue]
                added[coin] = added.get(coin, 0) + 1
            taken = (sum(n * accounts[i].positions for i, n in added.items()) - (left - unspent)) // unit
            fits = all(nnz[i] + n <= accounts[i].capacity for i, n in added.items())
            if fits and 1 <= nnz[cheap] - taken <= accounts[cheap].capacity:  # nor is a layer emptied for it
                for i, n in added.items():
                    nnz[i] += n
                nnz[cheap] -= taken
                return unspent
    return left


def _coins(
    accounts: Sequence[Account], nnz: Sequence[int], unit: int, cheap: int
) -> tuple[tuple[int, int], ...]:
    """One layer, the roomiest, for each distinct remainder of positions."""
    best: dict[int, int] = {}
    for i, account in enumerate(accounts):
        value = account.positions % unit
        room = account.capacity - nnz[i]
        if (
            i != cheap
            and value
            and room
            and (value not in best or room > accounts[best[value]].capacity - nnz[best[value]])
        ):
            best[value] = i
    return tuple((i, value) for value, i in best.items())
