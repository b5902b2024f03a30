"""Checks for people outside the terminal: one section a configured model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction

from iftplan.base.units import Convention, count, decimal, percent, share, with_sign
from iftplan.checks.findings import CheckReport, Drift, Limit, ModelCheck, Quantity, Status
from iftplan.checks.tables import changed_by, models_by_note
from iftplan.checks.verdicts import total_change
from iftplan.models.cost import ModelCost
from iftplan.report.page import (
    NO_LAYERS,
    Finding,
    Page,
    Place,
    Rule,
    Section,
    SectionStatus,
    Total,
    TreemapLayer,
)
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


def check_page(
    report: CheckReport,
    convention: Convention = Convention.MAC,
    place: Callable[[ModelCheck], Place | None] = lambda model: None,
) -> Page:
    """Report of a check as a page, a section for each model.

    Args:
        report: what the check found.
        convention: what a count of MACs is shown as.
        place: where in the repository a model is written; the configuration is named for the others.
    """
    shared = {note: names for note, names in models_by_note(report.models).items() if len(names) > 1}
    sections = tuple(
        _section(m, report, convention, place(m) or Place(report.config), shared) for m in report.models
    )
    notes = (f"{', '.join(names)}: {note}" for note, names in shared.items())
    return Page("iftplan check", sections, (*notes, *report.notes))


def _section(
    model: ModelCheck,
    report: CheckReport,
    convention: Convention,
    place: Place,
    shared: Collection[str],
) -> Section:
    measured, drift = model.measured, model.drift
    said = {*shared, *((total_change(drift.macs, "MACs"),) if drift else ())}  # the totals say it too
    return Section(
        subject=model.name,
        outcome=_OUTCOMES[model.status],
        headline=_headline(model, convention),
        totals=tuple(_totals(model, report.baseline, convention)),
        reason=_reason(model, report),
        changed=bool(drift and drift.any),
        summary=_summary(model),
        layers=_layers(measured, drift, convention, _by_parameters(model)) if measured else NO_LAYERS,
        shares=_shares(measured, drift, convention.per_mac) if measured else (),
        findings=_findings(model),
        notes=tuple(note for note in model.notes if note not in said),
        place=place,
    )


def _headline(model: ModelCheck, convention: Convention) -> str:
    """What a reader of one model wants first, in a few words; the totals have the numbers."""
    if over := _exceeded(model):
        return f"over its budget of {_listed([limit.title for limit in over])}"
    if model.measured is None or model.status not in (Status.PASSED, Status.FAILED):
        return model.status.value
    within = "within its budget" if model.limits else ""
    if model.unapplied:
        within = f"{within}, but {', '.join(model.unapplied)} is not applied to it"
    if model.drift is None:
        return within or f"{count(model.measured.total_macs * convention.per_mac)} {convention.unit}"
    return ", ".join(filter(None, (_moved(model.drift, convention), within)))


def _moved(drift: Drift, convention: Convention) -> str:
    """Change of a model's cost as a headline has it: `+16.4 % MACs`."""
    for diff, unit in ((drift.macs, convention.unit), (drift.parameters, "parameters")):
        if diff.difference:
            share = percent(Fraction(diff.difference, diff.base.macs)) if diff.base.macs else "more"
            return f"{share} {unit}"
    return "cost moved between layers" if drift.any else "cost unchanged"


def _exceeded(model: ModelCheck) -> list[Limit]:
    return [limit for limit in model.limits if not limit.kept]


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


# --- totals ----------------------------------------------------------------------------------------------


def _totals(model: ModelCheck, baseline: str, convention: Convention) -> Iterator[Total]:
    """What is limited, a row each; before them the cost, and after them changed parameters, where no limit is about it."""
    if model.measured is None:
        return
    within = SectionStatus.PASSED if _exceeded(model) else _OUTCOMES[model.status]
    work = Quantity.MACS if convention is Convention.MAC else Quantity.FLOPS
    if work not in {limit.quantity for limit in model.limits}:
        cost = count(model.measured.total_macs * convention.per_mac)
        yield Total(within, (("quantity", work.value), (">cost", cost), *_since(model, work, baseline)))
    for limit in model.limits:
        cells = (
            ("quantity", limit.title),
            (">cost", _number(limit.measured, limit)),
            *_since(model, limit.quantity, baseline),
            (">budget", _allowed(limit)),
            (">used", share(limit.measured / limit.allowed)),
        )
        yield Total(within if limit.kept else SectionStatus.FAILED, cells)
    if _parameters_moved(model):
        cost = count(model.measured.total_parameters)
        since = _since(model, Quantity.PARAMETERS, baseline)
        yield Total(within, (("quantity", Quantity.PARAMETERS.value), (">cost", cost), *since))


def _parameters_moved(model: ModelCheck) -> bool:
    """Whether a change is refused of which parameters are a part, and nothing limits them."""
    limited = any(limit.quantity is Quantity.PARAMETERS for limit in model.limits)
    moved = model.drift is not None and model.drift.parameters.difference != 0
    return moved and not limited and _change_refused(model)


def _change_refused(model: ModelCheck) -> bool:
    """Whether some of what is wrong is no budget."""
    return model.status is Status.FAILED and len(_exceeded(model)) < len(model.problems)


def _since(model: ModelCheck, quantity: Quantity, baseline: str) -> tuple[tuple[str, str], ...]:
    if not baseline:
        return ()
    told = "" if model.drift else "new"
    if model.drift and quantity is not Quantity.RATIO:
        convention = Convention.FLOP if quantity is Quantity.FLOPS else Convention.MAC
        parameters = quantity is Quantity.PARAMETERS
        told = changed_by(model.drift.parameters if parameters else model.drift.macs, convention)
    return ((f">since {baseline}", told),)


def _number(value: Fraction, limit: Limit) -> str:
    return decimal(value, 4) if limit.quantity is Quantity.RATIO else count(int(value))


def _allowed(limit: Limit) -> str:
    rule = "exactly " if limit.equal else ""
    tolerated = f" ± {percent(limit.tolerance).lstrip('+')}" if limit.tolerance else ""
    return f"{rule}{_number(limit.allowed, limit)}{tolerated}"


# --- why -------------------------------------------------------------------------------------------------


def _reason(model: ModelCheck, report: CheckReport) -> str:
    """By how much a budget is exceeded, or what a change that is meant needs; the totals have the rest."""
    if model.status is not Status.FAILED:
        return ""
    over = _exceeded(model)
    parts = [f"{start} {_listed(told)}." for start, told in _excesses(over).items()]
    if _change_refused(model):
        parts.append(
            f"{report.config} allows no such change since {report.baseline}. If it is meant, {_way_out(report)}."
        )
    return " ".join(parts)


def _way_out(report: CheckReport) -> str:
    """What lets a change pass that somebody wants: a saved baseline can be saved anew, a revision stays what it was."""
    if report.baseline.endswith(".json"):
        return "run iftplan check --save-baseline and commit the file"
    return f'set drift = "report" in {report.config} for this change, or raise the tolerance; a saved baseline is not looked at where a revision is compared'


def _excesses(limits: Sequence[Limit]) -> Mapping[str, Sequence[str]]:
    """How a sentence begins → what it lists."""
    found: dict[str, list[str]] = {}
    for limit in limits:
        above = limit.measured > limit.allowed
        if limit.quantity is Quantity.RATIO:
            told = f"the {limit.title} by {percent(abs(limit.deviation)).lstrip('+')}"
            found.setdefault("Above" if above else "Below", []).append(told)
        else:
            told = f"{count(int(abs(limit.measured - limit.allowed)))} {limit.quantity}"
            found.setdefault(f"{'Over' if above else 'Under'} budget by", []).append(told)
    return found


def _findings(model: ModelCheck) -> tuple[Finding, ...]:
    rule = _RULES.get(model.status)
    return tuple(Finding(rule, problem) for problem in model.problems) if rule else ()


# --- details ---------------------------------------------------------------------------------------------


def _summary(model: ModelCheck) -> tuple[tuple[str, str], ...]:
    """What the totals do not have."""
    rows = [("source", model.source)]
    if model.inputs:
        rows.append(("inputs", ", ".join(model.inputs)))
    limited = {limit.quantity for limit in model.limits}
    if model.measured and Quantity.PARAMETERS not in limited and not _parameters_moved(model):
        changed = f", {changed_by(model.drift.parameters, Convention.MAC)}" if model.drift else ""
        rows.append(("parameters", f"{count(model.measured.total_parameters)}{changed}"))
    return tuple(rows)


def _by_parameters(model: ModelCheck) -> bool:
    """Whether parameters alone are what a reader has to reduce."""
    return {limit.quantity for limit in _exceeded(model)} == {Quantity.PARAMETERS}


def _layers(measured: ModelCost, drift: Drift | None, convention: Convention, by_parameters: bool) -> Table:
    """What changed first, then what costs most; a removed layer has its row too."""
    macs, parameters = measured.macs, measured.parameters
    base: Mapping[str, int] = drift.macs.base.layers if drift else macs
    had: Mapping[str, int] = drift.parameters.base.layers if drift else parameters
    names = dict.fromkeys((*macs, *parameters, *base))
    gained = {n: (macs.get(n, 0) - base.get(n, 0)) * convention.per_mac for n in names}
    grown = {n: parameters.get(n, 0) - had.get(n, 0) for n in names}

    def weight(name: str) -> tuple[int, ...]:
        work = (abs(gained[name]), macs.get(name, 0))
        held = (abs(grown[name]), parameters.get(name, 0))
        first, second = (held, work) if by_parameters else (work, held)
        return first[0], second[0], first[1], second[1]

    ordered = sorted(names, key=weight, reverse=True)
    whole = measured.total_macs or 1
    rows = []
    for name in ordered:
        cells = [name, count(macs.get(name, 0) * convention.per_mac)]
        cells += [_gain(gained[name])] if drift else []
        cells += [share(macs.get(name, 0) / whole)]
        cells += [count(parameters[name]) if name in parameters else ""]
        cells += [_gain(grown[name])] if any(grown.values()) else []
        rows.append(tuple(cells))
    change = (">change",)
    columns = ("layer", f">{convention.unit}", *(change if drift else ()), ">share", ">parameters")
    return Table((*columns, *(change if any(grown.values()) else ())), tuple(rows))


def _gain(value: int) -> str:
    return with_sign(value) if value else ""


def _shares(measured: ModelCost, drift: Drift | None, per: int) -> tuple[TreemapLayer, ...]:
    base = drift.macs.base.layers if drift and drift.macs.changes else None
    return tuple(
        TreemapLayer(name, macs * per, None if base is None else base.get(name, 0) * per)
        for name, macs in measured.macs.items()
    )
