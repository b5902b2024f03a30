"""Checks for the terminal: one line a configured model, and one for each further line of its budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from iftplan.base.units import Convention, count, decimal, percent, share, with_sign
from iftplan.checks.findings import CheckReport, Drift, Limit, ModelCheck, Quantity, Status
from iftplan.plans.audit.diff import Diff
from iftplan.report.table import Table


def check_table(
    report: CheckReport, convention: Convention = Convention.MAC, *, judged: bool = True
) -> Table:
    """Table of all models: cost, change, used part of the budget, and outcome.

    Args:
        report: of the check.
        convention: the unit of counts.
        judged: whether costs were held against budgets; without, outcomes are shown where one is no cost.
    """
    compared = bool(report.baseline)
    rows = tuple(row for model in report.models for row in _rows(model, convention, compared))
    changed = (f">since {report.baseline}",) if compared else ()
    columns = ("model", f">{convention.unit}", *changed, ">parameters", ">of the budget", "outcome")
    if not judged:
        told = len(columns) if any(row[-1] not in ("", Status.PASSED) for row in rows) else len(columns) - 1
        kept = [i for i, name in enumerate(columns[:told]) if name != ">of the budget"]
        columns, rows = tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows)
    notes = (f"{', '.join(names)}: {note}" for note, names in models_by_note(report.models).items())
    return Table(columns, rows, report.config, (*notes, *report.notes))


def models_by_note(models: Sequence[ModelCheck]) -> Mapping[str, Sequence[str]]:
    """Names of the models that have a note, by note."""
    found: dict[str, list[str]] = {}
    for model in models:
        for note in model.notes:
            found.setdefault(note, []).append(model.name)
    return found


def _rows(model: ModelCheck, convention: Convention, compared: bool) -> Iterator[tuple[str, ...]]:
    """A model in one row, and a row for each further line of its budget, the one with the least room left first."""
    measured = model.measured
    macs = count(measured.total_macs * convention.per_mac) if measured else ""
    parameters = count(measured.total_parameters) if measured else ""
    told = since(model.drift, convention) if model.drift else "new" if measured else ""
    changed = (told,) if compared else ()
    tightest = sorted(model.limits, key=lambda limit: (limit.kept, -limit.deviation))
    first, *others = map(_used, tightest) if tightest else ("",)
    yield (model.name, macs, *changed, parameters, first, model.outcome)
    for used in others:
        yield ("", "", *("" for _ in changed), "", used, "")


def since(drift: Drift, convention: Convention) -> str:
    """Change of a model's cost in one cell, of its parameters where the cost is the same."""
    if not drift.macs.difference and drift.parameters.difference:
        return f"{with_sign(drift.parameters.difference)} parameters"
    return changed_by(drift.macs, convention) if drift.macs.changes else changed_by(drift.parameters)


def changed_by(diff: Diff, convention: Convention = Convention.MAC) -> str:
    """Change of a total in one cell: `+9 437 184 (+16.4 %)`."""
    if not diff.difference:
        return "same total" if diff.changes else "unchanged"
    share = f" ({percent(Fraction(diff.difference, diff.base.macs))})" if diff.base.macs else ""
    return f"{with_sign(diff.difference * convention.per_mac)}{share}"


def _used(limit: Limit) -> str:
    if limit.quantity is Quantity.RATIO:
        return f"{decimal(limit.measured, 4)} of {decimal(limit.allowed, 4)} {limit.reference}"
    part = share(limit.measured / limit.allowed).replace(" %", "%")
    return f"{part} of {count(int(limit.allowed))} {limit.quantity}"


def drift_tables(report: CheckReport, convention: Convention = Convention.MAC) -> list[Table]:
    """Tables of the layers that changed in each model, and of all models' totals."""
    changed = [
        drift_table(model.name, drift, convention)
        for model in report.models
        if (drift := model.drift) is not None and drift.any
    ]
    return [*changed, check_table(report, convention, judged=False)]


def drift_table(name: str, drift: Drift, convention: Convention = Convention.MAC) -> Table:
    """The layers of one model that changed, in MACs or in parameters, the most MACs first.

    Args:
        name: of the model.
        drift: its changes.
        convention: the unit of counts.
    """
    macs = {change.name: change for change in drift.macs.changes}
    parameters = {change.name: change for change in drift.parameters.changes}
    rows = []
    for layer in dict.fromkeys((*macs, *parameters)):
        m, p = macs.get(layer), parameters.get(layer)
        kind = (m or p or drift.macs.changes[0]).change
        sides = (drift.macs.base.layers, drift.macs.head.layers)
        before, after = (count(side.get(layer, 0) * convention.per_mac) for side in sides)
        gained = (
            with_sign(m.difference * convention.per_mac) if m else "",
            with_sign(p.difference) if p else "",
        )
        rows.append((layer, kind.value, before, after, *gained))
    unit = convention.unit
    columns = ("layer", "change", f">base {unit}", f">head {unit}", ">difference", ">parameters")
    return Table(columns, tuple(rows), f"{name}: {drift.macs.base.name} → working tree")
