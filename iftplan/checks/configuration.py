"""What a team wants checked: named models with their budgets, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.checks.findings import Quantity
from iftplan.models.spec import InputSpec

BASELINE = "baseline"
"""How a ratio names the saved baseline."""
BASELINE_FILE = "iftplan-baseline.json"
"""Where the baseline is saved, unless a configuration says another file."""


class DriftPolicy(StrEnum):
    """Changes since the baseline that fail a check."""

    ANY = "any"
    INCREASE = "increase"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Bound:
    """Bound of a budget: a quantity and the most that a model may have of it.

    Attributes:
        quantity: what is limited.
        allowed: the largest value; for a ratio, of measured to reference MACs.
        reference: what a ratio is to: `BASELINE`, a plan's file (.json) or another model's name.
        equal: whether a shortfall fails too.
    """

    quantity: Quantity
    allowed: Fraction
    reference: str = ""
    equal: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """Cost or unused module that iftplan cannot check, and that the user vouches for.

    Attributes:
        name: an operator, or a module that the pass need not use.
        macs: an operator's cost, `MACS_PER_CALL` or `N*out`; empty for a module.
        reason: why that is right.
    """

    name: str
    macs: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """Model of a configuration: how to build it, and its budget.

    Attributes:
        name: what it is called.
        source: a MODEL, or a plan's file, whose structure is then built and measured.
        builds: the MODEL that a plan's structure is built on; empty for what the plan names.
        inputs: shapes and dtypes; empty for the source's own.
        bounds: its budget.
        tolerance: the largest relative difference that passes.
        allowed: operators and modules that somebody vouches for.
        nonzeros: whether weights count by their nonzeros, which needs a network with data.
        cross_check: whether fvcore counts too, where it can, and has to agree.
        drift: which changes of MACs since the baseline fail; None for any since a saved baseline and none since a
            revision, which nobody agreed to keep.
        parameter_drift: the same of parameters; None for what holds for MACs.
    """

    name: str
    source: str
    builds: str = ""
    inputs: tuple[InputSpec, ...] = ()
    bounds: tuple[Bound, ...] = ()
    tolerance: Fraction = Fraction(0)
    allowed: tuple[Allowance, ...] = ()
    nonzeros: bool = False
    cross_check: bool = False
    drift: DriftPolicy | None = None
    parameter_drift: DriftPolicy | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """Configuration of `iftplan check`, as a file has it.

    Attributes:
        path: the file; what it names is relative to its folder.
        models: in the file's order.
        baseline: the baseline's file.
    """

    path: Path
    models: tuple[ConfiguredModel, ...]
    baseline: str = BASELINE_FILE

    @property
    def folder(self) -> Path:
        """Folder that relative paths begin in."""
        return self.path.parent

    def chosen(self, names: Sequence[str]) -> tuple[ConfiguredModel, ...]:
        """Models of these names, or all.

        Raises:
            InputError: there is no such model; names the nearest.
        """
        known = {model.name: model for model in self.models}
        for name in names:
            if name not in known:
                meant = did_you_mean(name, known, cutoff=0.6) or f" It has {', '.join(known)}."
                raise InputError(f"{self.path.name} has no model {name!r}.{meant}")
        return tuple(known[name] for name in dict.fromkeys(names)) or self.models
