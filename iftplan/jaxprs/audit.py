"""JAX models measured and compared with a budget, a plan or each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction

from iftplan.jaxprs.measure import counted
from iftplan.jaxprs.sources import construct
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
) -> AuditReport:
    """Report that compares the measured MACs of a JAX model with a reference, or only has them.

    Args:
        source: a MODEL argument that names Python.
        inputs: of the forward pass; none for those that the factory returns.
        against: another JAX model's source, or a cost; None for nothing.
        tolerance: the largest relative difference that passes.
        allow: costs of primitives that would be unknown, NAME=MACS.
        may_stay_uncalled: modules whose weights may stay unused.

    Raises:
        InputError: a model cannot be built.
        MeasureError: a model does not run on its shapes.
    """
    vouched = parse_vouched(allow)
    table, _, _ = counted(construct(source, inputs), vouched)
    if isinstance(against, str):
        against = Reference.of_table(counted(construct(against, inputs), vouched)[0], against)
    return audit_model(source, [table], against, tolerance=tolerance, may_stay_uncalled=may_stay_uncalled)
