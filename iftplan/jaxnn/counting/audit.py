"""JAX models measured and compared with a budget, a plan or each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction

from iftplan.jaxnn.counting.measure import Vouched, counted
from iftplan.jaxnn.counting.xla import xla_count
from iftplan.jaxnn.sources.models import Traceable
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
    return with_xla(report, model, vouched) if cross_check else report


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
