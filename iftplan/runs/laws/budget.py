"""The model size with the least loss under a budget of compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt

from iftplan.base.errors import InfeasibleError
from iftplan.base.units import abbreviate

_SMALLEST = 1e3
_GOLDEN = (sqrt(5) - 1) / 2
_GRID = 160


@dataclass(frozen=True, slots=True)
class Optimum:
    """Best split of a compute budget.

    Attributes:
        params: N, in the law's own count.
        data: D, tokens.
        loss: at these.
    """

    params: float
    data: float
    loss: float


def optimum(
    loss: Callable[[float, float], float],
    compute: float,
    *,
    active: Callable[[float], float] = lambda params: params,
    served: float = 0.0,
    most: float | None = None,
) -> Optimum:
    """The best N and D with 6·N_active·D + 2·N_active·D_served = F.

    Args:
        loss: of N and D.
        compute: F, FLOPs of training and inference, two for each MAC.
        active: N_active of N, the parameters that a token meets.
        served: D_served, tokens of inference that the budget pays for too.
        most: the largest N that may be chosen.

    Raises:
        InfeasibleError: the budget does not pay for the smallest model and one token.

    Example:
        >>> from iftplan.runs.laws.dense import DENSE
        >>> best = optimum(lambda n, d: DENSE.loss(params=n, data=d), 1e21)
        >>> f"{best.params:.2e} {best.data:.2e}"
        '1.82e+09 9.14e+10'
    """

    def data(params: float) -> float:
        return (compute / active(params) - 2 * served) / 6

    low, high = log(_SMALLEST), log(min(compute, most or compute))
    while high > low and data(exp(high)) < 1:
        high -= 0.01
    if high <= low:
        inference = f" and {abbreviate(served)} tokens of inference" if served else ""
        raise InfeasibleError(
            f"{compute:.3g} FLOPs do not pay for training{inference}, even with the smallest model "
            f"({abbreviate(_SMALLEST)} parameters); give at least {8 * active(_SMALLEST) * (served + 1):.3g} FLOPs."
        )

    def at(x: float) -> float:
        return loss(exp(x), data(exp(x)))

    grid = [low + (high - low) * i / _GRID for i in range(_GRID + 1)]
    nearest = min(range(len(grid)), key=lambda i: at(grid[i]))
    left, right = grid[max(nearest - 1, 0)], grid[min(nearest + 1, _GRID)]
    while right - left > 1e-9:
        a, b = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        left, right = (left, b) if at(a) <= at(b) else (a, right)
    best = min(((left + right) / 2, grid[0], grid[-1]), key=at)
    return Optimum(exp(best), data(exp(best)), at(best))
