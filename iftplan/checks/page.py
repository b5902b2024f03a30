"""Checks for people outside the terminal: one section a configured model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from iftplan.base.units import Convention, count, decimal, percent, with_sign
from iftplan.checks.findings import CheckReport, Drift, Limit, ModelCheck, Quantity, Status
from iftplan.checks.tables import budget_use, models_by_note, since
from iftplan.models.cost import ModelCost
from iftplan.plans.audit.tables import change
from iftplan.report.page import NO_LAYERS, Finding, Page, Place, Rule, Section, SectionStatus, TreemapLayer
from iftplan.report.table import Table

_OUTCOMES = {
    Status.PASSED: SectionStatus.PASSED,
    Status.FAILED: SectionStatus.FAILED,
    Status.INVALID: SectionStatus.INVALID,
    Status.UNMEASURED: SectionStatus.UNMEASURED,
    Status.STALE: SectionStatus.STALE,
}
_RULES = {
    Status.FAILED: Rule.COST,
    Status.INVALID: Rule.CONFIGURATION,
    Status.UNMEASURED: Rule.UNMEASURABLE,
    Status.STALE: Rule.STALE_PLAN,
}


_LONGEST = 120
"""Characters of a headline."""


def check_page(
    report: CheckReport,
    convention: Convention = Convention.MAC,
    place: Callable[[str], Place | None] = lambda source: None,
) -> Page:
    """Report of a check as a page, a section for each model.

    Args:
        report: what the check found.
        convention: what a count of MACs is shown as.
        place: where in the repository a source is written; the configuration is named for the others.
    """
    shared = {note: names for note, names in models_by_note(report.models).items() if len(names) > 1}
    sections = tuple(
        _section(m, convention, place(m.source) or Place(report.config), shared) for m in report.models
    )
    notes = (f"{', '.join(names)}: {note}" for note, names in shared.items())
    return Page("iftplan check", sections, (*notes, *report.notes))


def _section(
    model: ModelCheck, convention: Convention, place: Place, shared: Collection[str] = ()
) -> Section:
    measured = model.measured
    return Section(
        subject=model.name,
        outcome=_OUTCOMES[model.status],
        headline=_headline(model, convention),
        figures=_figures(model, convention),
        summary=_summary(model, convention),
        layers=_layers(measured, model.drift, convention) if measured else NO_LAYERS,
        shares=_shares(measured, model.drift, convention.per_mac) if measured else (),
        findings=_findings(model),
        notes=tuple(note for note in model.notes if note not in shared),
        place=place,
    )


def _headline(model: ModelCheck, convention: Convention) -> str:
    if model.problems:
        return _short(model.problems[0])
    if model.measured is None:
        return model.status.value
    total = f"{count(model.measured.total_macs * convention.per_mac)} {convention.unit}"
    if model.drift is None:
        return total
    macs = model.drift.macs
    return f"{total}, {change(macs.base.macs, macs.head.macs, convention)}" if macs.changes else total


def _short(sentence: str) -> str:
    """What a sentence begins with; the finding has the rest."""
    first = sentence.partition("; ")[0].rstrip(".")
    return first if len(first) <= _LONGEST else f"{first[: _LONGEST - 1].rstrip()}…"


def _figures(model: ModelCheck, convention: Convention) -> tuple[tuple[str, str], ...]:
    """The columns of an overview: cost, change, and how much is used of every line of the budget."""
    if model.measured is None:
        return ()
    figures = [(convention.unit, count(model.measured.total_macs * convention.per_mac))]
    if model.drift:
        figures.append(("change", since(model.drift, convention)))
    if model.limits:
        figures.append(("of the budget", ", ".join(map(budget_use, model.limits))))
    return tuple(figures)


def _findings(model: ModelCheck) -> tuple[Finding, ...]:
    rule = _RULES.get(model.status)
    return tuple(Finding(rule, problem) for problem in model.problems) if rule else ()


def _summary(model: ModelCheck, convention: Convention) -> tuple[tuple[str, str], ...]:
    rows = [("source", " ".join((model.source, *model.inputs)))]
    if model.measured:
        rows.append((convention.unit, count(model.measured.total_macs * convention.per_mac)))
        rows.append(("parameters", count(model.measured.total_parameters)))
    rows += [_limit(limit) for limit in model.limits]
    if model.drift:
        macs, parameters = model.drift.macs, model.drift.parameters
        rows.append(("since the baseline", change(macs.base.macs, macs.head.macs, convention)))
        rows.append(("parameters since the baseline", with_sign(parameters.difference)))
    return tuple(rows)


def _limit(limit: Limit) -> tuple[str, str]:
    number = decimal if limit.quantity is Quantity.RATIO else lambda value: count(int(value))
    sign = "✓" if limit.kept else "✗"
    bound = "equal to" if limit.equal else "at most"
    told = f"{sign} {number(limit.measured)} of {bound} {number(limit.allowed)} ({percent(limit.deviation)})"
    return f"budget: {limit.title}", told


def _layers(measured: ModelCost, drift: Drift | None, convention: Convention) -> Table:
    """What changed first, then what costs most; a removed layer has its row too."""
    per, unit = convention.per_mac, convention.unit
    base: Mapping[str, int] = drift.macs.base.layers if drift else measured.macs
    names = dict.fromkeys((*measured.macs, *measured.parameters, *base))
    gained = {n: measured.macs.get(n, 0) - base.get(n, 0) for n in names}
    ordered = sorted(names, key=lambda n: (-abs(gained[n]), -measured.macs.get(n, 0)))
    whole = measured.total_macs or 1
    rows = []
    for name in ordered:
        macs = measured.macs.get(name, 0)
        own = measured.parameters.get(name)
        cells = (name, count(macs * per), f"{macs / whole:.2%}", "" if own is None else count(own))
        changed = (with_sign(gained[name] * per) if gained[name] else "",) if drift else ()
        rows.append((*cells, *changed))
    return Table(
        ("layer", f">{unit}", ">share", ">parameters", *((">difference",) if drift else ())), tuple(rows)
    )


def _shares(measured: ModelCost, drift: Drift | None, per: int) -> tuple[TreemapLayer, ...]:
    base = drift.macs.base.layers if drift else None
    return tuple(
        TreemapLayer(name, macs * per, None if base is None else base.get(name, 0) * per)
        for name, macs in measured.macs.items()
    )
