"""What `iftplan audit --framework jax` measures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.documents import schema_of
from iftplan.base.errors import InputError
from iftplan.cli.arguments import document_in, plan_in, require_jax, short_name, spec_in
from iftplan.cli.output import working
from iftplan.models.allowances import parse_vouched
from iftplan.models.spec import InputSpec

if TYPE_CHECKING:
    from iftplan.plans.audit.audit import AuditReport, Reference


def refuse_torch_options(given: Mapping[str, bool]) -> None:
    """Refuse what is about networks of PyTorch.

    Args:
        given: option → whether it was given.

    Raises:
        InputError: one was.
    """
    if wrong := [option for option, present in given.items() if present]:
        raise InputError(
            f"{' and '.join(wrong)} cannot be combined with --framework jax, which counts a model's jaxpr as it is. Leave it out."
        )


def jax_report(
    subject: str,
    inputs: Sequence[InputSpec],
    against: str | None,
    budget: str | None,
    tolerance: Fraction | None,
    allow: Sequence[str],
    may_stay_uncalled: Collection[str],
) -> AuditReport:
    """Report that compares the MACs of a JAX model with a plan, a spec, another JAX model or a budget.

    Args:
        subject: a MODEL argument that names Python.
        inputs: of the forward pass; none for those that the factory returns.
        against: plan or spec file, or another JAX model.
        budget: the most MACs.
        tolerance: the largest relative difference that passes; None for the usual one.
        allow: costs of unknown primitives, NAME=MACS.
        may_stay_uncalled: modules whose weights may stay unused.
    """
    require_jax(f"measuring {subject}")
    from iftplan.jaxprs.measure import counted
    from iftplan.jaxprs.sources import construct
    from iftplan.plans.audit.audit import Reference, audit_model

    vouched = parse_vouched(allow)
    with working(f"measuring {subject}"):
        table, _, _ = counted(construct(subject, inputs), vouched)
        reference = Reference.of_budget(budget) if budget else None
        if against:
            reference = _document(against) or Reference.of_table(
                counted(construct(against, inputs), vouched)[0], against
            )
    usual = Fraction(0) if budget else Fraction(1, 1000)
    return audit_model(
        subject,
        [table],
        reference,
        tolerance=usual if tolerance is None else tolerance,
        may_stay_uncalled=may_stay_uncalled,
    )


def _document(against: str) -> Reference | None:
    """Totals of a plan or a spec, of whichever framework; None for a model source."""
    from iftplan.plans.audit.audit import Reference

    document = document_in(against)
    if document is None:
        return None
    name = short_name(against)
    if schema_of(document, against) == "plan":
        return Reference.of_plan(plan_in(document, against), f"plan {name}")
    macs = spec_in(document, against, ()).macs
    return Reference(f"spec {name}", macs, dense_macs=macs)
