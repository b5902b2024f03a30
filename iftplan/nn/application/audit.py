"""Plan against reality: an applied model, its active weights counted on its own masks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from torch import nn

from iftplan.base.arguments import checked
from iftplan.base.errors import InputError
from iftplan.base.units import count
from iftplan.nn.counting.operators.table import Operator
from iftplan.nn.counting.opinions import measure_by
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.masks.nonzeros import check_even, nonzeros
from iftplan.nn.meta.inputs import matching
from iftplan.plans.audit.audit import AuditReport, audit_plan
from iftplan.plans.plan import Plan


@checked
def measure_applied(
    plan: Plan,
    model: nn.Module,
    *,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
    tolerance: Fraction = Fraction(1, 10**6),
    may_stay_uncalled: Collection[str] = (),
) -> AuditReport:
    """Measure an applied model and hold it against its plan, layer by layer.

    Masks with values are counted; masks on the meta device have none, so there the plan's counts stand and the
    report says so.

    Args:
        plan: what was applied.
        model: what came of it, not finalized.
        engines: "meta", "fvcore", "flop_counter"; the first is compared layer by layer.
        second: an engine that counts it too if it can, see `measure_by`.
        operators: formulas for operators that would be unknown.
        tolerance: the largest relative difference that passes.
        may_stay_uncalled: modules that the pass need not use.

    Raises:
        InputError: the plan masks weights, and the model has no masks.
        MeasureError: an engine could not run the model.
    """
    masked = list(masked_weights(model))
    if not masked and any(layer.maskable for layer in plan.layers):
        raise InputError(
            "the plan masks weights and the model has no masks; measure what iftplan.nn.apply returned, before it is finalized or densified."
        )
    inputs = matching(plan.inputs, model)
    tables = measure_by(model, inputs, engines, second=second, operators=operators)
    planned = any(weight.mask.is_meta for weight in masked)
    active = None if planned else _active(model)
    if not planned:
        check_even(model, tables[0])
    report = audit_plan(plan, tables, tolerance=tolerance, may_stay_uncalled=may_stay_uncalled, active=active)
    found = (*report.problems, *_search_space(plan, model), *_leaks(model), *_unmeasured(report))
    return replace(report, problems=found)


def _active(model: nn.Module) -> dict[str, Fraction]:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return {name: Fraction(kept, sizes[name]) for name, kept in nonzeros(model).items()}


def _unmeasured(report: AuditReport) -> Iterator[str]:
    """What kept the report from an answer, with the argument that would allow it."""
    for name in report.uncalled_modules:
        yield f"{name} holds weights that the forward pass never used; if that is meant, give may_stay_uncalled=({name!r},)."
    for name, calls in report.unknown_ops.items():
        yield f"operator {name} ({calls} calls) has no formula; if you know its cost, give operators={{{name!r}: …}}."


def _search_space(plan: Plan, model: nn.Module) -> tuple[str, ...]:
    """The masks cover what the plan says can be explored."""
    planned = plan.cardinality.maskable_weights
    found = sum(weight.mask.numel() for weight in masked_weights(model))
    if planned is None or found == planned:
        return ()
    return (f"masks cover {count(found)} weights where the plan masks {count(planned)}.",)


def _leaks(model: nn.Module) -> tuple[str, ...]:
    """Weights that are not zero off their mask work without being counted."""
    return tuple(
        f"{weight.name} is not zero off its mask; call iftplan.nn.enforce_ after every change of the weights."
        for weight in masked_weights(model)
        if not weight.mask.is_meta and bool(weight.parameter[~weight.mask].count_nonzero())
    )
