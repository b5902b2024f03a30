"""A scaling law as a value: its equation, its constants, what it depends on and where it was fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Any

from iftplan.base.errors import InputError
from iftplan.base.units import abbreviate

Formula = Callable[[Mapping[str, Any], Mapping[str, Any], Any], Any]
"""Constants, variables, and the module that has `log` and `exp` for them (`math`, or `numpy` for arrays) → loss."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A quantity that a law depends on.

    Attributes:
        name: as an argument, and as a column of a table of runs.
        symbol: in the equation.
        meaning: what it counts.
        unit: what the equation's number is counted in; 1e9 for billions.
        low: smallest value among the runs that the law was fitted on; None where the source read here does not say.
        high: largest value among them; None where the source read here does not say.
        least: smallest value that makes sense; where it is 0, only values above it do, but for a sparsity.
        below: all values that make sense are smaller.
    """

    name: str
    symbol: str
    meaning: str
    unit: float = 1.0
    low: float | None = None
    high: float | None = None
    least: float = 0.0
    below: float = inf

    def check(self, value: float) -> None:
        """Refuse a value that makes no sense.

        Raises:
            InputError: it is outside the variable's range, or not finite.
        """
        if self.below < inf and not self.least <= value < self.below:
            raise InputError(f"{self.name} {value:g} is outside [{self.least:g}, {self.below:g}).")
        if not isfinite(value) or value < self.least or (value <= 0 and self.below == inf):
            raise InputError(
                f"{self.name} is {value:g}; it must be a finite number "
                + (f"from {self.least:g} on." if self.least else "above 0.")
            )

    def beyond(self, value: float) -> str:
        """Sentence that says that a value is outside the range of the fit; empty where it is inside or not known."""
        below = self.low is not None and value < self.low * (1 - _ROUNDING)
        above = self.high is not None and value > self.high * (1 + _ROUNDING)
        if not (below or above):
            return ""
        ends = [
            f"{word} {_shown(end)}"
            for word, end in (("from", self.low), ("up to" if self.low is None else "to", self.high))
            if end is not None
        ]
        return f"the law was fitted on {self.symbol} {' '.join(ends)}, so {_shown(value)} {self.meaning} is extrapolated"


_ROUNDING = 1e-9


def _shown(value: float) -> str:
    return abbreviate(value) if value >= 1000 else f"{value:.4g}"


SPARSITY = {"least": 0.0, "below": 1.0}
"""Range of a sparsity, for `Variable`."""


@dataclass(frozen=True, slots=True)
class Law:
    """A scaling law with the constants of one fit.

    Attributes:
        name: as it is asked for.
        title: what it is about, with the models and the data it was fitted on.
        source: the paper, and its equation or table.
        equation: as text.
        variables: what it depends on, in the order of `loss`.
        constants: of the fit.
        formula: the equation as a function.
        amplitudes: constants that are positive and depend on the units of the variables; a fit begins anywhere with them.
        result: what the law gives: loss in nats unless said otherwise.
        remarks: sentences on this fit that an answer has to say.
        definitions: sentences on the equation, which hold for every fit.
    """

    name: str
    title: str
    source: str
    equation: str
    variables: tuple[Variable, ...]
    constants: Mapping[str, float]
    formula: Formula = field(repr=False)
    amplitudes: tuple[str, ...] = ()
    result: str = "loss"
    remarks: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()

    def variable(self, name: str) -> Variable:
        """Variable of that name.

        Raises:
            InputError: the law does not depend on it.
        """
        for variable in self.variables:
            if variable.name == name:
                return variable
        names = ", ".join(variable.name for variable in self.variables)
        raise InputError(f"the law {self.name} does not depend on {name}; it depends on {names}.")

    def loss(self, **values: float) -> float:
        """Loss (or whatever `result` names) at these values, a number for each variable.

        Raises:
            InputError: a variable is missing, unknown or makes no sense, or the law leads to nothing above 0 there.
        """
        for name in values:
            self.variable(name)
        if missing := [v.name for v in self.variables if v.name not in values]:
            raise InputError(
                f"the law {self.name} depends on {', '.join(missing)} too, which has no value here."
            )
        for variable in self.variables:
            variable.check(values[variable.name])
        found = float(self.formula(self.constants, self.in_units(values), math))
        if not found > 0:
            given = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            raise InputError(
                f"the law {self.name} gives the {self.result} {found:.4g} at {given}, which cannot be: it is too far "
                "from the runs that the law was fitted on. Ask for larger sizes or more data."
            )
        return found

    def in_units(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values (numbers or arrays) in the units of the equation."""
        return {v.name: values[v.name] / v.unit for v in self.variables}

    def notes(self, **values: float) -> tuple[str, ...]:
        """Sentences on the limits of an answer at these values."""
        known = [v for v in self.variables if v.low is not None or v.high is not None]
        unknown = [v.symbol for v in self.variables if v not in known]
        said = [sentence for v in known if v.name in values and (sentence := v.beyond(values[v.name]))]
        if unknown:
            said.append(
                f"the range of {' and '.join(unknown)} that the law was fitted on is not known here, so iftplan "
                "cannot say whether it is left"
            )
        return (*self.definitions, *self.remarks, *said)

    def fitted(self, constants: Mapping[str, float], variables: tuple[Variable, ...], title: str) -> Law:
        """The same law with the constants of another fit.

        Args:
            constants: a number for each name.
            variables: with the units and the ranges of the new fit.
            title: models and data of the new fit.
        """
        return replace(
            self,
            constants=dict(constants),
            variables=variables,
            title=title,
            source=f"{self.source}, fitted anew",
            remarks=(),
        )
