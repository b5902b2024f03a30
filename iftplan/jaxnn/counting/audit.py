"""JAX models measured and compared with a budget, a plan or each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction

from iftplan.jaxnn.counting.measure import Vouched, counted
from iftplan.jaxnn.counting.xla import xla_count
from iftplan.jaxnn.sources.models import Traceable, fingerprint
from iftplan.jaxnn.sources.sources import construct
from iftplan.models.allowances import parse_vouched
from iftplan.models.spec import InputSpec
from iftplan.plans.audit.audit import AuditReport, Reference, audit_model


def audit_source(
    source: str,
    inputs: Sequence[InputSpec] = (),
    against: str | Reference | None = None,
    *,
    tolerance: Fraction = Fraction(1, 1000),
    allow: Sequence[str] = (),
    may_stay_uncalled: Collection[str] = (),
    cross_check: bool = False,
    dense: str = "",
) -> AuditReport:
    """Report that compares the measured MACs of a JAX model with a reference, or only has them.

    Args:
        source: a MODEL argument that names Python.
        inputs: of the forward pass; none for those that the factory returns.
        against: another JAX model's source, or a cost; None for nothing.
        tolerance: the largest relative difference that passes.
        allow: costs of primitives that would be unknown, NAME=MACS.
        may_stay_uncalled: modules whose weights may stay unused.
        cross_check: whether XLA's analysis stands beside it, with the reasons for each difference.
        dense: fingerprint of the dense model of a plan that the reference is of; that one does not pass as the plan.

    Raises:
        InputError: a model cannot be built.
        MeasureError: a model does not run on its shapes.
    """
    vouched = parse_vouched(allow)
    model = construct(source, inputs)
    table = counted(model, vouched).table
    if isinstance(against, str):
        base = counted(construct(against, inputs), vouched).table
        against = Reference.of_table(base, against, may_stay_uncalled=may_stay_uncalled)
    report = audit_model(source, [table], against, tolerance=tolerance, may_stay_uncalled=may_stay_uncalled)
    if dense and fingerprint(model) == dense:
        report = replace(report, problems=(*report.problems, unapplied(source)))
    return with_xla(report, model, vouched) if cross_check else report


def unapplied(name: str) -> str:
    """Sentence that a model is the dense one of a plan, which costs as much by design.

    Args:
        name: of the model.
    """
    return f"{name} is the dense network that the plan was made for, and not the planned one, so equal totals say nothing. Audit the plan itself, or a network that it was applied to with jaxnn.apply."


def with_xla(report: AuditReport, model: Traceable, vouched: Vouched) -> AuditReport:
    """The report with the count of XLA's analysis, which counts by other rules and so is compared with nothing.

    Args:
        report: of the model.
        model: the model.
        vouched: primitive → cost that the user gives.
    """
    found = xla_count(model, vouched)
    if found is None:
        return replace(report, notes=("XLA could not compile the model, so it has no count.",))
    return replace(report, counters={**report.counters, "xla": found.macs}, notes=found.sentences)
