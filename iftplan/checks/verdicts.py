"""Hold what a model costs against its budget and its baseline: pure, and in sentences that name the layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from iftplan.base.errors import InputError
from iftplan.base.units import count, percent, with_sign
from iftplan.checks.baseline import Baseline
from iftplan.checks.configuration import BASELINE, Bound, ConfiguredModel, DriftPolicy
from iftplan.checks.findings import Drift, Limit, ModelCheck, Quantity, Status
from iftplan.checks.messages import in_configuration
from iftplan.models.cost import ModelCost
from iftplan.plans.audit.diff import ChangeKind, Diff, LayerChange, LayerCosts, diff

_NAMED = 3
"""Layers that a sentence names before it says how many more there are."""


def check_model(
    model: ConfiguredModel,
    measured: ModelCost,
    *,
    baseline: Baseline | None = None,
    references: Mapping[str, int] | None = None,
    cached: bool = False,
) -> ModelCheck:
    """Check of one model by its measured cost: limits, drift and outcome.

    Args:
        model: what was configured.
        measured: what it costs.
        baseline: what drift is measured from.
        references: plan's file or other model → MACs, for the ratios that name them.
        cached: whether nothing had to be measured.
    """
    uncalled = measured.uncalled_modules
    may_stay = {a.name for a in model.allowed if not a.macs}
    measured = replace(measured, uncalled_modules=tuple(m for m in uncalled if m not in may_stay))
    found = ModelCheck(
        name=model.name,
        source=model.source,
        inputs=tuple(map(str, model.inputs)),
        status=Status.PASSED,
        measured=measured,
        drift=_drift(model.name, measured, baseline),
        cached=cached,
        notes=(
            *_vouched(model, uncalled),
            *(f"assumed: {in_configuration(a)}" for a in measured.assumptions),
        ),
    )
    if unknown := tuple(_unknown(measured)):
        return replace(found, status=Status.UNMEASURED, problems=unknown)
    try:
        found = replace(found, limits=tuple(_limits(model, measured, baseline, references or {})))
    except InputError as error:
        return replace(found, status=Status.INVALID, problems=(str(error),))
    usual = DriftPolicy.ANY if baseline is None or baseline.saved else DriftPolicy.REPORT
    problems = (*_exceeded(found), *_drifted(found, model, usual))
    return replace(
        found,
        status=Status.FAILED if problems else Status.PASSED,
        problems=problems,
        notes=(*_moved(found, baseline, model.drift, told=bool(problems)), *found.notes),
    )


def _vouched(model: ConfiguredModel, uncalled: Sequence[str]) -> Iterator[str]:
    for a in model.allowed:
        if not a.macs and a.name not in uncalled:
            yield f"allowed, and not needed: no module {a.name} was left uncalled"
            continue
        what = f"{a.name} costs {a.macs} MACs a call" if a.macs else f"{a.name} is not called"
        yield f"allowed: {what}, because {a.reason}"


def _unknown(measured: ModelCost) -> Iterator[str]:
    for name, calls in measured.unknown_ops.items():
        yield f'iftplan has no cost formula for {name} ({calls} call{"s" * (calls != 1)}). If you know its cost, write allow = [{{operator = "{name}", macs = "…", reason = "…"}}].'
    for name in measured.uncalled_modules:
        yield f'module {name} has weights that this forward pass never used. If that is intended, write allow = [{{module = "{name}", reason = "…"}}].'


# --- budgets ---------------------------------------------------------------------------------------------


def _limits(
    model: ConfiguredModel, measured: ModelCost, baseline: Baseline | None, references: Mapping[str, int]
) -> Iterator[Limit]:
    macs = Fraction(measured.total_macs)
    for bound in model.bounds:
        match bound.quantity:
            case Quantity.MACS:
                found = macs
            case Quantity.FLOPS:
                found = 2 * macs
            case Quantity.PARAMETERS:
                found = Fraction(measured.total_parameters)
            case Quantity.RATIO:
                found = macs / _reference(bound, model, baseline, references)
        yield Limit(bound.quantity, bound.allowed, found, model.tolerance, bound.reference, bound.equal)


def _reference(
    bound: Bound, model: ConfiguredModel, baseline: Baseline | None, references: Mapping[str, int]
) -> int:
    if bound.reference == BASELINE and (baseline is None or model.name not in baseline.models):
        raise InputError(
            f"a ratio to the baseline needs one that has {model.name}; save it with iftplan check --save-baseline and commit it."
        )
    in_baseline = bound.reference == BASELINE and baseline is not None
    macs = baseline.macs(model.name).macs if in_baseline and baseline else references.get(bound.reference)
    if not macs:
        why = "could not be measured" if macs is None else "costs no MACs"
        raise InputError(f"{bound.reference} {why}, so there is no ratio to it.")
    return macs


def _exceeded(check: ModelCheck) -> Iterator[str]:
    for limit in check.limits:
        if limit.kept:
            continue
        tolerated = f", {percent(limit.tolerance).lstrip('+')} tolerated" if limit.tolerance else ""
        rule = "wanted" if limit.equal else "allowed"
        if limit.quantity is Quantity.RATIO:
            numbers = f"{float(limit.measured):.6g} times the MACs of {limit.reference}, {float(limit.allowed):.6g} {rule}"
        else:
            numbers = f"{count(int(limit.measured))} {limit.quantity}, {count(int(limit.allowed))} {rule}"
        yield f"{numbers} ({percent(limit.deviation)}{tolerated}); {_because(check, limit)}."


def _because(check: ModelCheck, limit: Limit) -> str:
    """The layers behind an excess: those that changed, or, where nothing is known of before, the largest."""
    parameters = limit.quantity is Quantity.PARAMETERS
    if check.drift is not None:
        changes = check.drift.parameters if parameters else check.drift.macs
        if changes.changes:
            return f"since {changes.base.name}: {_layers(changes.changes)}"
    assert check.measured is not None
    costs = check.measured.parameters if parameters else check.measured.macs
    largest = sorted(costs.items(), key=lambda item: -item[1])[:_NAMED]
    return "the largest layers: " + ", ".join(f"{name}: {count(cost)}" for name, cost in largest)


# --- drift -----------------------------------------------------------------------------------------------


def _drift(name: str, measured: ModelCost, baseline: Baseline | None) -> Drift | None:
    if baseline is None or name not in baseline.models:
        return None
    return Drift(
        diff(baseline.macs(name), LayerCosts(name, measured.macs)),
        diff(baseline.parameters(name), LayerCosts(name, measured.parameters)),
    )


def _drifted(check: ModelCheck, model: ConfiguredModel, usual: DriftPolicy) -> Iterator[str]:
    if check.drift is None:
        return
    macs, parameters = check.drift.macs, check.drift.parameters
    more = _beyond(macs, model.drift or usual, model.tolerance)
    larger = _beyond(parameters, model.parameter_drift or model.drift or usual, model.tolerance)
    if more and larger:
        known = {change.name for change in macs.changes}
        others = [change for change in parameters.changes if change.name not in known]
        where = _layers(macs.changes) + (f"; parameters alone: {_layers(others)}" if others else "")
        base = macs.base.name
        yield f"{_total(macs, f'MACs since {base}')} and {_total(parameters, 'parameters')}; {where}."
    elif more or larger:
        yield f"{total_change(macs, 'MACs') if more else total_change(parameters, 'parameters')}."


def _beyond(changes: Diff, policy: DriftPolicy, tolerance: Fraction) -> bool:
    """Whether a total has changed more than a policy lets it."""
    if policy is DriftPolicy.REPORT:
        return False
    gained = changes.difference if policy is DriftPolicy.INCREASE else abs(changes.difference)
    return gained > tolerance * changes.base.macs


def total_change(changes: Diff, unit: str) -> str:
    """Change of a total since the base, and the layers in which it lies."""
    return f"{_total(changes, f'{unit} since {changes.base.name}')}; {_layers(changes.changes)}"


def _total(changes: Diff, unit: str) -> str:
    before, after = changes.base.macs, changes.head.macs
    share = f", {percent(Fraction(after, before) - 1)}" if before else ""
    return f"{with_sign(changes.difference)} {unit} ({count(before)} → {count(after)}{share})"


def _layers(changes: Sequence[LayerChange]) -> str:
    named = [_layer(change) for change in changes[:_NAMED]]
    more = len(changes) - len(named)
    return ", ".join(named) + (f", and {more} more layer{'s' * (more != 1)}" if more else "")


def _layer(change: LayerChange) -> str:
    by = with_sign(change.difference)
    if change.change is ChangeKind.CHANGED:
        return f"layer {change.name} {count(change.base_macs)} → {count(change.head_macs)} ({by})"
    return f"layer {change.name} {change.change} ({by})"


def _moved(
    check: ModelCheck, baseline: Baseline | None, drift: DriftPolicy | None, *, told: bool
) -> Iterator[str]:
    """What about the baseline is worth saying and no failure."""
    if baseline is None:
        if drift in (DriftPolicy.ANY, DriftPolicy.INCREASE):
            yield f'drift = "{drift}" was not checked, for there is no baseline: save one with iftplan check --save-baseline, or name a git revision with --base'
        return
    if check.drift is None:
        how = "; iftplan check --save-baseline puts it there" if baseline.saved else ""
        yield f"there is nothing to compare with in {baseline.name}{how}"
        return
    before = baseline.inputs.get(check.name, ())
    if before != check.inputs:
        yield f"{baseline.name} was measured with {', '.join(before) or 'the default inputs'}"
    if not told and check.drift.macs.changes:
        yield total_change(check.drift.macs, "MACs")
