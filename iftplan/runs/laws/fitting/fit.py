"""A law fitted to runs, with 95 % intervals from resampled runs.

As for arXiv 2309.08520 and 2203.15556, the Huber loss of the residuals is minimised from many random starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor, inf, log10
from typing import Any

from iftplan.base.errors import InputError
from iftplan.runs.laws.fitting.runs import LawRuns
from iftplan.runs.laws.law import Law, Variable

_FEWEST = 3
_FAR = 1e3
"""Residual where a law has no value."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Settings of a fit of a law to runs.

    Attributes:
        delta: residual from which on the Huber loss grows linearly.
        log: whether residuals are differences of logarithms, which are relative; else of losses.
        starts: random starts, of which the best is kept.
        resamples: fits to resampled runs, of which the intervals are made; 0 for no intervals.
        seed: of starts and resamples.

    Raises:
        InputError: no start, or a delta that is not positive.
    """

    delta: float = 1e-3
    log: bool = True
    starts: int = 16
    resamples: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.starts < 1 or self.resamples < 0 or not 0 < self.delta < inf:
            raise InputError(
                f"a fit needs at least 1 start, 0 resamples and a delta above 0; got {self.starts}, {self.resamples} "
                f"and {self.delta:g}."
            )


@dataclass(frozen=True, slots=True)
class LawFit:
    """A law fitted to runs.

    Attributes:
        law: with the fitted constants, and the ranges of the runs.
        intervals: 95 % interval of each constant; empty without resamples.
        samples: constants of each fit to resampled runs.
        runs: number of runs.
        error: root mean square of the residuals, relative where they are logarithms.
        objective: mean Huber loss of the residuals.
        settings: how it was fitted.
    """

    law: Law
    intervals: Mapping[str, tuple[float, float]]
    samples: tuple[Mapping[str, float], ...]
    runs: int
    error: float
    objective: float
    settings: FitSettings

    def loss_interval(self, **values: float) -> tuple[float, float] | None:
        """95 % interval of the loss at these values, of the law and not of a single run; None without resamples."""
        at = self.law.in_units(values)
        losses = sorted(float(self.law.formula(k, at, math)) for k in self.samples)
        return middle(losses) if losses else None


def fit_law(
    law: Law, runs: LawRuns, settings: FitSettings | None = None, units: Mapping[str, float] | None = None
) -> LawFit:
    """A law with the constants that fit some runs best.

    Args:
        law: whose equation is fitted; its own constants serve as a start.
        runs: that were measured.
        settings: how; the defaults are those of arXiv 2203.15556.
        units: units of variables in the equation; by default powers of ten near the runs' own values.

    Raises:
        InputError: too few runs, a variable that hardly varies, or SciPy is not installed.
    """
    settings = settings or FitSettings()
    _check(law, runs)
    try:
        import numpy as np
        from scipy.optimize import least_squares
    except ImportError as error:
        raise InputError(
            "fitting a law needs SciPy, which is not installed; install it with: pip install 'iftplan[train]'."
        ) from error

    variables = tuple(_ranged(v, runs.values[v.name], (units or {}).get(v.name)) for v in law.variables)
    values = {v.name: np.array(runs.values[v.name]) / v.unit for v in variables}
    losses, names = np.array(runs.losses), tuple(law.constants)
    positive = np.array([name in law.amplitudes for name in names])

    def constants(x: Any) -> dict[str, float]:
        found = np.where(positive, np.exp(np.where(positive, x, 0.0)), x)
        return dict(zip(names, map(float, found), strict=True))

    def residuals(x: Any, chosen: Any) -> Any:
        with np.errstate(all="ignore"):
            given = law.formula(constants(x), {k: v[chosen] for k, v in values.items()}, np)
            found = np.log(given) - np.log(losses[chosen]) if settings.log else given - losses[chosen]
        return np.where(np.isfinite(found), np.clip(found, -_FAR, _FAR), _FAR)

    def minimum(x: Any, chosen: Any, tolerance: float = 1e-8) -> Any:
        rough = least_squares(residuals, x, x_scale="jac", args=(chosen,), max_nfev=200).x
        return least_squares(
            residuals, rough, x_scale="jac", loss="huber", f_scale=settings.delta, args=(chosen,), max_nfev=200,
            xtol=tolerance, ftol=tolerance, gtol=tolerance,
        )  # fmt: skip

    random, everything = np.random.default_rng(settings.seed), np.arange(len(runs))
    typical = np.array([law.constants[name] for name in names])

    def start() -> Any:
        near = typical + random.normal(size=len(names)) * 0.3 * np.maximum(np.abs(typical), 0.3)
        return np.where(positive, np.log(random.uniform(0.05, 1, len(names)) * losses.mean()), near)

    best = min((minimum(start(), everything) for _ in range(settings.starts)), key=lambda found: found.cost)
    best = minimum(best.x, everything, 1e-12)
    drawn = [random.integers(0, len(runs), len(runs)) for _ in range(settings.resamples)]
    samples = tuple(constants(minimum(best.x, chosen).x) for chosen in drawn)
    intervals = {name: middle(sorted(k[name] for k in samples)) for name in names} if samples else {}
    fitted = law.fitted(constants(best.x), variables, f"{len(runs)} runs of your own")
    left = residuals(best.x, everything)
    return LawFit(
        replace(fitted, equation=_with_units(law.equation, variables)), intervals, samples, len(runs),
        float(np.sqrt(np.mean(left**2))), float(best.cost) / len(runs), settings,
    )  # fmt: skip


def _check(law: Law, runs: LawRuns) -> None:
    if len(runs) < len(law.constants):
        raise InputError(
            f"{len(runs)} runs cannot determine the {len(law.constants)} constants of the law {law.name}; give at "
            f"least as many runs, better {3 * len(law.constants)} and more."
        )
    for variable in law.variables:
        if (found := len(set(runs.values[variable.name]))) < _FEWEST:
            raise InputError(
                f"all runs together have {found} different value{'s' * (found != 1)} of {variable.name}, so the law's "
                f"terms in it cannot be told apart; give runs with at least {_FEWEST}."
            )


def _ranged(variable: Variable, values: tuple[float, ...], unit: float | None) -> Variable:
    """The variable with the range of the runs, and a unit near them where its own is free."""
    free = variable.below == inf and not variable.least
    near = 10.0 ** floor(sum(map(log10, values)) / len(values)) if free else variable.unit
    return replace(variable, low=min(values), high=max(values), unit=unit or near)


def _with_units(equation: str, variables: tuple[Variable, ...]) -> str:
    counted = [f"{v.symbol} in {v.unit:g}" for v in variables if v.unit != 1]
    return ", ".join([equation.split(", D in")[0], *counted])


def middle(ordered: list[float]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of sorted numbers, at the nearest of them."""
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]
