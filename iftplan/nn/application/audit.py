"""Audits: a plan compared with its own structure, with an applied model and its masks, or with any network.

What `iftplan audit`, `iftplan check`, the assertions and Python ask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib import import_module
from types import MappingProxyType

from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.base.units import count
from iftplan.masks import parse_mask
from iftplan.models.counting import CountTable
from iftplan.models.spec import InputSpec
from iftplan.nn.application.dense_model import dense_model
from iftplan.nn.application.measuring import measure_plan
from iftplan.nn.counting.cross_check import measure_by
from iftplan.nn.counting.operators.registry import Operator
from iftplan.nn.masks.masked_weights import masked_names, masked_weights
from iftplan.nn.masks.nonzeros import check_even
from iftplan.nn.masks.nonzeros import nonzeros as count_nonzeros
from iftplan.nn.masks.view import is_of
from iftplan.nn.meta.inputs import matching
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.nn.torch_internals import failure
from iftplan.plans.audit.audit import PLAN_TOLERANCE, AuditReport, Reference, audit_model, audit_plan
from iftplan.plans.plan import Plan, Role

COUNTED_AS_DENSE = (
    "Weights under masks are counted as if they were dense; `nonzeros=True` counts those that the masks keep."
)
"""What a report says of a network whose masks were not asked for."""


def load(engines: Sequence[str], second: str = "") -> None:
    """Import what every audit needs, before the reading of files is recorded.

    Args:
        engines: that are to count.
        second: one that counts too if it can; "" for none.
    """
    for name in filter(None, (*engines, second)):
        import_module(f"iftplan.nn.counting.engines.{name}")
    failure("counting")  # which is tried once
    if "fvcore" in (*engines, second):
        failure("tracing")


def audit(
    plan: Plan,
    model: nn.Module | str | None = None,
    *,
    trust: bool = False,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
    tolerance: Fraction = PLAN_TOLERANCE,
    may_stay_uncalled: Collection[str] = (),
) -> AuditReport:
    """Report that compares a plan's MACs with those of its structure, which is built without data and measured.

    Args:
        plan: the plan.
        model: the dense network, of which a copy is made, or its source; None for the source that the plan names.
        trust: whether Python that the plan names may run.
        engines: "meta", "fvcore", "flop_counter"; the first is compared layer by layer.
        second: a second engine, which counts where it can and must agree; "" for none.
        operators: formulas for operators that have none, by qualified name.
        tolerance: the largest relative difference that passes.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.

    Raises:
        InputError: the plan names Python that nobody else named, or no source at all.
        StaleError: the model is not the one that the plan was made for.
        MeasureError: an engine could not run the structure.
    """
    return audit_structure(
        plan,
        dense_model(plan, model, trust=trust),
        engines=engines,
        second=second,
        operators=operators,
        tolerance=tolerance,
        may_stay_uncalled=may_stay_uncalled,
    )


def audit_structure(
    plan: Plan,
    dense: nn.Module,
    *,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
    tolerance: Fraction = PLAN_TOLERANCE,
    may_stay_uncalled: Collection[str] = (),
) -> AuditReport:
    """The same report for a dense model that is built already; the model is changed into the structure.

    Args:
        plan: the plan.
        dense: from `dense_model`; it is changed.
        engines: "meta", "fvcore", "flop_counter"; the first is compared layer by layer.
        second: a second engine, which counts where it can and must agree; "" for none.
        operators: formulas for operators that have none, by qualified name.
        tolerance: the largest relative difference that passes.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.

    Raises:
        MeasureError: an engine could not run the structure.
    """
    tables = measure_plan(plan, dense, engines=engines, second=second, operators=operators)
    return audit_plan(plan, tables, tolerance=tolerance, may_stay_uncalled=may_stay_uncalled)


def audit_network(
    subject: str,
    network: nn.Module,
    inputs: Sequence[InputSpec],
    reference: Reference | None = None,
    *,
    nonzeros: bool = False,
    masks: bool = False,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
    tolerance: Fraction = Fraction(1, 1000),
    may_stay_uncalled: Collection[str] = (),
    attention: str = "",
) -> AuditReport:
    """Report that compares a network's measured MACs with another network, a plan's total or a budget.

    Args:
        subject: what the report calls it.
        network: on the meta device, or with values.
        inputs: what it is counted with.
        reference: cost that it is compared with; None reports only what was measured.
        nonzeros: whether each weight counts by its masks and its zeros, for which it needs values.
        masks: whether weights under masks count by these alone.
        engines: "meta", "fvcore", "flop_counter"; the first is compared layer by layer.
        second: a second engine, which counts where it can and must agree; "" for none.
        operators: formulas for operators that have none, by qualified name.
        tolerance: the largest relative difference that passes.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        attention: pattern by whose pairs attention counts, within each call's own mask; "own" for that alone; empty
            for every query with every key.

    Raises:
        InputError: the pattern cannot be read or counted.
        MeasureError: an engine could not run the network, its zeros make no one cost, or the mask of attention is not
            known.
    """
    network = unwrapped(network)
    tables = measure_by(network, inputs, engines, second=second, operators=operators)
    report = audit_model(
        subject,
        tables,
        reference,
        tolerance=tolerance,
        nonzeros=_shares(network, tables[0], from_values=nonzeros) if nonzeros or masks else None,
        may_stay_uncalled=may_stay_uncalled,
        attention=attention,
    )
    if nonzeros or masks or not any(True for _ in masked_weights(network)):
        return report
    return replace(report, assumptions=(COUNTED_AS_DENSE, *report.assumptions))


def network_reference(
    name: str,
    network: nn.Module,
    inputs: Sequence[InputSpec],
    *,
    nonzeros: bool = False,
    masks: bool = False,
    operators: Mapping[str, Operator] = MappingProxyType({}),
    may_stay_uncalled: Collection[str] = (),
) -> Reference:
    """Cost of a network that another is compared with, counted as `audit_network` counts.

    Args:
        name: how reports name it.
        network: on the meta device, or with values.
        inputs: what it is counted with.
        nonzeros: whether each weight counts by its masks and its zeros, for which it needs values.
        masks: whether weights under masks count by these alone.
        operators: formulas for operators that have none, by qualified name.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.

    Raises:
        MeasureError: it could not be run or measured, or its zeros make no one cost.
    """
    network = unwrapped(network)
    (table,) = measure_by(network, inputs, ("meta",), operators=operators)
    shares = _shares(network, table, from_values=nonzeros) if nonzeros or masks else None
    return Reference.of_table(table, name, shares, may_stay_uncalled)


@check_arguments
def measure_applied(
    plan: Plan,
    model: nn.Module,
    *,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
    tolerance: Fraction = PLAN_TOLERANCE,
    may_stay_uncalled: Collection[str] = (),
    redistributed: bool = False,
) -> AuditReport:
    """Report that compares the MACs of an applied model with its plan, layer by layer.

    Active weights are counted from the masks. Masks on the meta device have no values; there the plan's counts are used,
    and the report says so.

    Args:
        plan: the plan that was applied.
        model: the model that `iftplan.nn.apply` returned, not finalized.
        engines: "meta", "fvcore", "flop_counter"; the first is compared layer by layer.
        second: a second engine, which counts where it can and must agree; "" for none.
        operators: formulas for operators that have none, by qualified name.
        tolerance: the largest relative difference that passes.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        redistributed: whether training moved weights between layers, as SNFS does, so that only the model's total is
            compared; the masks may cost less than the plan by a part of one weight.

    Raises:
        InputError: the plan masks weights, and the model has no masks.
        MeasureError: an engine could not run the model.
    """
    model = unwrapped(model)
    masked = list(masked_weights(model))
    if not masked and any(layer.maskable for layer in plan.layers):
        raise InputError(
            "the plan masks weights and the model has no masks; measure what iftplan.nn.apply returned, before it is finalized or densified."
        )
    inputs = matching(plan.inputs, model)
    tables = measure_by(model, inputs, engines, second=second, operators=operators)
    planned = any(weight.mask.is_meta for weight in masked)
    active = None if planned else _shares(model, tables[0])
    report = audit_plan(
        plan,
        tables,
        tolerance=tolerance,
        may_stay_uncalled=may_stay_uncalled,
        active=active,
        redistributed=redistributed,
    )
    found = (
        *report.problems,
        *_search_space(plan, model),
        *_other_structures(plan, model),
        *_leaks(model),
        *_unmeasured(report),
    )
    return replace(report, problems=found)


def _shares(model: nn.Module, table: CountTable, *, from_values: bool = False) -> dict[str, Fraction]:
    """Weight → the share of it that is not zero, by its mask or, from values, by itself."""
    check_even(model, table)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    found = count_nonzeros(model, from_values=from_values)
    return {name: Fraction(kept, sizes[name]) for name, kept in found.items()}


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


def _other_structures(plan: Plan, model: nn.Module) -> Iterator[str]:
    """Masks that are not of the plan's structure, as they are where training has moved them without it."""
    structure = parse_mask(plan.mask)
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = [x for x in plan.layers if x.maskable and x.role is Role.TRANSFORMED]
    patterned = {name for layer in layers for name in masked_names(modules.get(layer.name), layer)}
    for weight in masked_weights(model):
        if weight.name in patterned and not weight.mask.is_meta and not is_of(structure, weight):
            yield f"the mask of {weight.name} is no {structure} mask, as the plan has it; train under nn.Masking, which keeps the structure, or choose it again."


def _leaks(model: nn.Module) -> tuple[str, ...]:
    """Weights that are not zero off their mask work without being counted."""
    return tuple(
        f"{weight.name} is not zero off its mask; call iftplan.nn.enforce_ after every change of the weights."
        for weight in masked_weights(model)
        if not weight.mask.is_meta and bool(weight.parameter[~weight.mask].count_nonzero())
    )
