"""A network compared with a plan: layer by layer where it has the plan's masks, else as a whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType

from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.base.units import decimal
from iftplan.models.spec import InputSpec
from iftplan.nn.application.audit import audit_network, measure_applied
from iftplan.nn.counting.operators.registry import Operator
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.meta.inputs import given_inputs, matching
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.plans.audit.audit import PLAN_TOLERANCE, AuditReport, Reference
from iftplan.plans.plan import Plan

TOTAL_TOLERANCE = Fraction(1, 1000)
"""The largest relative difference between a plan's total and that of a network without masks."""


@check_arguments
def audit_against(
    network: nn.Module,
    plan: Plan,
    inputs: object = None,
    *,
    operators: Mapping[str, Operator] = MappingProxyType({}),
    may_stay_uncalled: Collection[str] = (),
    redistributed: bool = False,
) -> AuditReport:
    """Report that compares a given network with a plan: layer by layer if the plan was applied to it.

    Args:
        network: with the plan's masks, finalized, or dense; not changed.
        plan: the plan that it is compared with.
        inputs: what it is counted with, as `given_inputs` takes them; None for the plan's own.
        operators: formulas for operators that have none, by qualified name.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        redistributed: whether training moved weights between layers, so that only the total is compared.

    Raises:
        InputError: an input that cannot be read.
        MeasureError: the network could not be run.
    """
    network = unwrapped(network)
    used = matching(plan.inputs, network) if inputs is None else given_inputs(inputs, network)
    return audit_by_plan(
        f"the {type(network).__name__}",
        network,
        used,
        plan,
        nonzeros=not any(p.is_meta for p in network.parameters()),
        second="fvcore",
        operators=operators,
        may_stay_uncalled=may_stay_uncalled,
        redistributed=redistributed,
    )


def audit_by_plan(
    subject: str,
    network: nn.Module,
    inputs: Sequence[InputSpec],
    plan: Plan,
    *,
    reference: str = "",
    nonzeros: bool = False,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
    tolerance: Fraction | None = None,
    may_stay_uncalled: Collection[str] = (),
    redistributed: bool = False,
) -> AuditReport:
    """The same report, for a network that has a name and inputs already.

    Args:
        subject: what the report calls the network.
        network: on any device.
        inputs: what it is counted with; layers are compared at the plan's own inputs only.
        plan: the plan.
        reference: how the report names the plan; "" for its family and sparsity.
        nonzeros: whether each weight of a network without masks counts by its zeros, for which it needs values.
        engines: "meta", "fvcore", "flop_counter"; the first is compared layer by layer.
        second: a second engine, which counts where it can and must agree; "" for none.
        operators: formulas for operators that have none, by qualified name.
        tolerance: the largest relative difference that passes; None for 1e-6 with masks, 1e-3 without.
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        redistributed: whether training moved weights between layers, so that only the total is compared.

    Raises:
        MeasureError: an engine could not run the network.
    """
    network = unwrapped(network)
    if is_applied(plan, network, inputs):
        return measure_applied(
            plan,
            network,
            engines=engines,
            second=second,
            operators=operators,
            tolerance=PLAN_TOLERANCE if tolerance is None else tolerance,
            may_stay_uncalled=may_stay_uncalled,
            redistributed=redistributed,
        )
    report = audit_network(
        subject,
        network,
        inputs,
        Reference.of_plan(
            plan, reference or f"plan: {plan.transform} at sparsity {decimal(plan.sparsity, 4)}"
        ),
        nonzeros=nonzeros
        and bool(plan.cardinality.maskable_weights),  # zeros of a plan without masks are chance
        engines=engines,
        second=second,
        operators=operators,
        tolerance=TOTAL_TOLERANCE if tolerance is None else tolerance,
        may_stay_uncalled=may_stay_uncalled,
    )
    masked = any(True for _ in masked_weights(network))
    told = "" if masked else _unapplied(report, plan, network)
    if not (report.passed or _has_inputs(plan, network, inputs)):
        told = (
            f"The plan is for input {_shown(plan.inputs)}, and the network was counted with {_shown(inputs)}."
        )
    return replace(report, problems=(*report.problems, told)) if told else report


def _shown(inputs: Sequence[InputSpec]) -> str:
    return " ".join(map(str, inputs))


def is_applied(plan: Plan, network: nn.Module, inputs: Sequence[InputSpec]) -> bool:
    """Whether a network has masks and the plan's own inputs, so that they can be compared layer by layer.

    Args:
        plan: the plan.
        network: on any device.
        inputs: what the network is counted with.
    """
    return any(True for _ in masked_weights(network)) and _has_inputs(plan, network, inputs)


def _has_inputs(plan: Plan, network: nn.Module, inputs: Sequence[InputSpec]) -> bool:
    """Whether the inputs are those of the plan."""
    return tuple(inputs) in (plan.inputs, matching(plan.inputs, network))


def _unapplied(report: AuditReport, plan: Plan, network: nn.Module) -> str:
    """Sentence that a network is the plan's dense model and not the planned one; empty if it is another network.

    The dense model of an iso-FLOP plan costs as much as the planned one, so totals cannot tell them apart.
    """
    if not any(layer.changes for layer in plan.layers) or fingerprint(network) != plan.fingerprint:
        return ""
    same = ""
    if report.deviation is not None and abs(report.deviation) <= report.tolerance:
        same = "; both cost the same by design, so equal totals say nothing"
    return f"{report.subject} is the dense network that the plan was made for, and not the planned one{same}. Audit the plan itself, or a network that it was applied to with nn.apply."
