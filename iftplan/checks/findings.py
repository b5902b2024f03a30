"""What `iftplan check` found: every configured model, what it costs, and what that was held against.

Values only. `verdicts` makes them, `report/` shows them, and every format is written from a `CheckReport`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import Convention, fraction
from iftplan.models.cost import ModelCost
from iftplan.plans.audit.diff import Diff
from iftplan.report.display import Displayed

if TYPE_CHECKING:
    from iftplan.report.table import Table

SCHEMA = "iftplan.check/1"


class Status(StrEnum):
    """Outcome of a model's check."""

    PASSED = "passed"
    FAILED = "failed"
    INVALID = "bad input"
    UNMEASURED = "could not measure"
    STALE = "stale plan"

    @property
    def exit_code(self) -> int:
        """Exit status of the command line."""
        return list(Status).index(self)


_WEIGHTIEST = (Status.FAILED, Status.INVALID, Status.STALE, Status.UNMEASURED, Status.PASSED)
"""What a report of several models ends with: a certain no outranks what could not be told."""


class Quantity(StrEnum):
    """Quantity that a limit is about."""

    MACS = "MACs"
    FLOPS = "FLOPs"
    PARAMETERS = "parameters"
    RATIO = "MACs ratio"


@dataclass(frozen=True, slots=True)
class Limit:
    """Limit of a budget beside the measured number.

    Attributes:
        quantity: what is limited.
        allowed: the largest value; for a ratio, of measured to reference MACs.
        measured: the value found.
        tolerance: the largest relative excess that passes.
        reference: what a ratio is to: "baseline", a plan's file or another model's name.
        equal: whether a shortfall fails too.
    """

    quantity: Quantity
    allowed: Fraction
    measured: Fraction
    tolerance: Fraction = Fraction(0)
    reference: str = ""
    equal: bool = False

    @property
    def deviation(self) -> Fraction:
        """Relative difference `measured/allowed - 1`."""
        return self.measured / self.allowed - 1

    @property
    def kept(self) -> bool:
        """Whether what was measured is within the limit and its tolerance."""
        return (abs(self.deviation) if self.equal else self.deviation) <= self.tolerance

    @property
    def title(self) -> str:
        """Name of the limit: `MACs`, `parameters`, `MACs ratio to baseline`."""
        return f"{self.quantity} to {self.reference}" if self.reference else self.quantity.value


@dataclass(frozen=True, slots=True)
class Drift:
    """Changes since the baseline, layer by layer, biggest first."""

    macs: Diff
    parameters: Diff

    @property
    def any(self) -> bool:
        """Whether anything has changed."""
        return bool(self.macs.changes or self.parameters.changes)


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """Check of one configured model: its cost, limits, drift and outcome.

    Attributes:
        name: its name in the configuration.
        source: what it is built from, as in MODEL; `path/file.py:factory` names a place to annotate.
        inputs: its inputs, as `--input` writes them.
        status: how its check ended.
        measured: what it costs; None where it could not be built or run.
        limits: its budget, line by line.
        drift: what changed since the baseline; None without one.
        problems: sentences: why it did not pass; the first is the headline.
        notes: sentences: what was assumed or allowed, and why.
        cached: whether nothing had to be measured.
        unapplied: plans that it has to cost as much as, and whose dense network it still is.
    """

    name: str
    source: str
    inputs: tuple[str, ...]
    status: Status
    measured: ModelCost | None = None
    limits: tuple[Limit, ...] = ()
    drift: Drift | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cached: bool = False
    unapplied: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """Outcome of its check in words, as its line has it: a passed check says there which plans say nothing."""
        told = f", but {', '.join(self.unapplied)} is not applied to it" if self.unapplied else ""
        return f"{self.status.value}{told}"

    @property
    def differs(self) -> bool:
        """Whether the model costs something else than at the baseline, or was measured and is not there."""
        return self.drift.any if self.drift else self.measured is not None


@dataclass(frozen=True, slots=True)
class CheckReport(Displayed):
    """Report on the models of a configuration, all or those that were asked for.

    Attributes:
        config: the configuration's path as it was found.
        baseline: what drift is measured from: a file's name or a git revision; empty without one.
        models: in the configuration's order.
        notes: sentences about the whole.
    """

    config: str
    baseline: str
    models: tuple[ModelCheck, ...]
    notes: tuple[str, ...] = ()

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.checks.tables import check_table

        return (check_table(self),)

    @property
    def status(self) -> Status:
        """The worst outcome of its models."""
        found = {model.status for model in self.models}
        return next((status for status in _WEIGHTIEST if status in found), Status.PASSED)

    @property
    def passed(self) -> bool:
        """Whether every model passed."""
        return self.status is Status.PASSED


def check_document(report: CheckReport, convention: Convention = Convention.MAC) -> Document:
    """The report as a JSON object, sealed with its digest; counts of MACs in the convention named inside."""
    return with_digest(
        {
            "schema": SCHEMA,
            "convention": convention.value,
            "config": report.config,
            "baseline": report.baseline or None,
            "status": report.status.value,
            "passed": report.passed,
            "notes": list(report.notes),
            "models": [_model_object(model, convention.per_mac) for model in report.models],
        }
    )


def _model_object(model: ModelCheck, per: int) -> Document:
    return {
        "name": model.name,
        "source": model.source,
        "inputs": list(model.inputs),
        "status": model.status.value,
        "passed": model.status is Status.PASSED,
        "problems": list(model.problems),
        "notes": list(model.notes),
        "limits": [_limit_object(limit) for limit in model.limits],
        "drift": None if model.drift is None else _drift_object(model.drift, per),
        **_measured_object(model.measured, per),
    }


def _measured_object(measured: ModelCost | None, per: int) -> Document:
    if measured is None:
        return {
            "measured_macs": None,
            "parameters": None,
            "unknown_ops": {},
            "uncalled_modules": [],
            "layers": [],
        }
    names = dict.fromkeys((*measured.macs, *measured.parameters))
    return {
        "measured_macs": measured.total_macs * per,
        "parameters": measured.total_parameters,
        "unknown_ops": dict(measured.unknown_ops),
        "uncalled_modules": list(measured.uncalled_modules),
        "layers": [
            {
                "name": n,
                "measured_macs": measured.macs.get(n, 0) * per,
                "parameters": measured.parameters.get(n, 0),
            }
            for n in names
        ],
    }


def _limit_object(limit: Limit) -> Document:
    return {
        "quantity": limit.quantity.value,
        "reference": limit.reference or None,
        "allowed": float(limit.allowed),
        "allowed_exact": fraction(limit.allowed),
        "measured": float(limit.measured),
        "measured_exact": fraction(limit.measured),
        "tolerance": float(limit.tolerance),
        "tolerance_exact": fraction(limit.tolerance),
        "deviation": float(limit.deviation),
        "deviation_exact": fraction(limit.deviation),
        "equal": limit.equal,
        "kept": limit.kept,
    }


def _drift_object(drift: Drift, per: int) -> Document:
    return {"macs": _changes(drift.macs, per), "parameters": _changes(drift.parameters, 1)}


def _changes(diff: Diff, per: int) -> Document:
    return {
        "base": diff.base.macs * per,
        "head": diff.head.macs * per,
        "difference": diff.difference * per,
        "layers": [
            {
                "name": c.name,
                "change": c.change.value,
                "base": c.base_macs * per,
                "head": c.head_macs * per,
                "difference": c.difference * per,
            }
            for c in diff.changes
        ],
    }
