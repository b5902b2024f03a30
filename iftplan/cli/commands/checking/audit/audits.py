"""An audit of a plan or a model that can be made, or was kept: what `iftplan audit` measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypedDict

from iftplan.base.documents import Document, schema_of
from iftplan.cli.arguments import operators_of, plan_in, require_jax, require_torch, short_name, spec_in
from iftplan.cli.commands.checking.audit.activations import OnData, with_activity
from iftplan.cli.kept_answers import kept_folder
from iftplan.cli.output import working
from iftplan.cli.process import lasting_imports
from iftplan.models.spec import Framework, InputSpec

if TYPE_CHECKING:
    from torch.nn import Module

    from iftplan.nn.counting.operators.registry import Operator
    from iftplan.plans.audit.audit import AuditReport, Reference
    from iftplan.plans.plan import Plan


class Terms(TypedDict):
    """Engines, operators and modules of an audit: how it measures, and what passes."""

    engines: tuple[str, ...]
    second: str
    allow: tuple[str, ...]
    may_stay_uncalled: tuple[str, ...]


class _Measuring(TypedDict):
    """The same, as the audits take it."""

    engines: tuple[str, ...]
    second: str
    operators: Mapping[str, Operator]
    may_stay_uncalled: tuple[str, ...]


def _measuring(terms: Terms) -> _Measuring:
    return {
        "engines": terms["engines"],
        "second": terms["second"],
        "operators": operators_of(terms["allow"]),
        "may_stay_uncalled": terms["may_stay_uncalled"],
    }


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit that can be made.

    Attributes:
        doing: what it does, for who waits.
        sources: of the models that it builds.
        report: makes it.
        framework: library that its models are written in.
    """

    doing: str
    sources: tuple[str, ...]
    report: Callable[[], AuditReport]
    framework: Framework = "torch"


def kept_or_made(audit: Audit, request: Document, no_cache: bool) -> AuditReport:
    """The report of an earlier command while it would come out the same, or a new one.

    Args:
        audit: that would be made.
        request: everything that was asked.
        no_cache: whether an earlier report is not looked for.
    """
    from iftplan.cache.answers import Question, keep_answer, kept_answer, watch_reads
    from iftplan.models.sources import parse_source
    from iftplan.plans.audit.document import audit_document, parse_report

    folder = kept_folder(no_cache)
    asked = Question(request, any(parse_source(source).runs_user_code for source in audit.sources))
    if (found := kept_answer(asked, folder)) is not None:
        return parse_report(found)
    building = f"building {audit.sources[0] if audit.sources else 'the model'}"
    if audit.framework == "jax":
        require_jax(building)
        with lasting_imports():
            import iftplan.jaxnn.counting.audit  # noqa: F401
    else:
        require_torch(building)
        with lasting_imports():
            from iftplan.nn.application.audit import load

            load(request["engines"], request["second"])
    reads = watch_reads(folder)
    with working(audit.doing):
        report = audit.report()
    keep_answer(asked, folder, audit_document(report), reads)
    return report


def framework_asked(document: Document | None, model: str | None, subject: str) -> Framework:
    """Library of the model that is audited, or that a plan was made for.

    Args:
        document: of the plan; None where a model is audited.
        model: source that stands for the plan's own.
        subject: the model's source, where there is no document.
    """
    from iftplan.models.frameworks import framework_of

    if document is None:
        return framework_of(subject)
    return framework_of(model or str(document.get("model", "")))


def audit_of_plan(
    plan: Plan,
    model: str | None,
    trust: bool,
    tolerance: Fraction | None,
    terms: Terms,
    framework: Framework,
) -> Audit:
    """Audit of a plan: its model built as planned, and held against its own budget.

    Args:
        plan: of a model of either framework.
        model: source of the network; None for the plan's own.
        trust: whether the user's code may be run to build it.
        tolerance: of ratios; None for the usual one.
        terms: how to measure.
        framework: that the model is written in.
    """
    from iftplan.plans.audit.audit import PLAN_TOLERANCE

    def of_torch() -> AuditReport:
        from iftplan.nn.application.audit import audit

        return audit(plan, model, trust=trust, tolerance=_or(tolerance, PLAN_TOLERANCE), **_measuring(terms))

    def of_jax() -> AuditReport:
        from iftplan.jaxnn.application.audit import audit

        return audit(
            plan,
            model,
            trust=trust,
            tolerance=_or(tolerance, PLAN_TOLERANCE),
            allow=terms["allow"],
            may_stay_uncalled=terms["may_stay_uncalled"],
        )

    sources = tuple(filter(None, (model or plan.model,)))
    doing = f"building and measuring the plan for {plan.model}"
    return Audit(doing, sources, of_jax if framework == "jax" else of_torch, framework)


def audit_of_model(
    subject: str,
    inputs: tuple[InputSpec, ...],
    against: tuple[str | None, Document | None],
    budget: str | None,
    nonzeros: bool,
    redistributed: bool,
    tolerance: Fraction | None,
    terms: Terms,
    measured: OnData | None,
    attention: str,
) -> Audit:
    """Audit of a network in PyTorch, held against a budget, a plan, or another network.

    Args:
        subject: source of the network.
        inputs: of one forward pass; empty for the source's own.
        against: name of a plan or model, and its document where it is one.
        budget: the most MACs.
        nonzeros: whether weights that are zero are left out.
        redistributed: whether the total alone is compared with a plan's.
        tolerance: of ratios; None for the usual one.
        terms: how to measure.
        measured: data for effective MACs; None for none.
        attention: pattern of pairs that are counted; empty for all.
    """
    from iftplan.plans.audit.audit import Reference

    name, document = against
    plan = plan_in(document, name) if document is not None and name is not None else None
    if plan is not None:
        inputs = inputs or plan.inputs

    def report() -> AuditReport:
        from iftplan.nn.sources import construct_with_inputs

        if measured is None:
            return static(*construct_with_inputs(subject, inputs, device="cpu" if nonzeros else "meta"))
        from iftplan.nn.application.against_plan import is_applied
        from iftplan.nn.training.measures.activity import network_with_values

        network, used = network_with_values(subject, inputs)
        masked = nonzeros or (plan is not None and is_applied(plan, network, used))
        return with_activity(static(network, used), network, used, measured, masked, terms["allow"])

    def static(network: Module, used: tuple[InputSpec, ...]) -> AuditReport:
        from iftplan.nn.application.against_plan import audit_by_plan
        from iftplan.nn.application.audit import audit_network

        measuring = _measuring(terms)
        if plan is not None:
            found = audit_by_plan(
                subject,
                network,
                used,
                plan,
                reference=f"plan {short_name(name or '')}",
                nonzeros=nonzeros,
                tolerance=tolerance,
                redistributed=redistributed,
                **measuring,
            )
            return replace(found, subject=subject)
        reference = Reference.of_budget(budget) if budget else None
        if name is not None:
            reference = _reference(name, used, measuring, nonzeros=nonzeros)
        usual = Fraction(0) if budget else Fraction(1, 1000)
        return audit_network(
            subject,
            network,
            used,
            reference,
            nonzeros=nonzeros,
            tolerance=_or(tolerance, usual),
            attention=attention,
            **measuring,
        )

    sources = (subject, name) if name is not None and plan is None else (subject,)
    return Audit(f"measuring {subject}", sources, report)


def audit_of_jax_model(
    subject: str,
    inputs: tuple[InputSpec, ...],
    against: tuple[str | None, Document | None],
    budget: str | None,
    tolerance: Fraction | None,
    terms: Terms,
    cross_check: bool,
) -> Audit:
    """Audit of a JAX model, held against a budget, a plan or spec of either framework, or another JAX model.

    Args:
        subject: source of the model.
        inputs: of one forward pass; empty for the source's own.
        against: name of a plan, spec or model, and its document where it is one.
        budget: the most MACs.
        tolerance: of ratios; None for the usual one.
        terms: how to measure.
        cross_check: whether XLA's own count is explained too.
    """
    from iftplan.plans.audit.audit import Reference

    name, document = against
    reference: str | Reference | None = Reference.of_budget(budget) if budget else name
    dense = ""
    if name and document is not None and schema_of(document, name) == "plan":
        plan = plan_in(document, name)
        reference = Reference.of_plan(plan, f"plan {short_name(name)}")
        dense = plan.fingerprint if any(layer.changes for layer in plan.layers) else ""
    elif name and document is not None:
        macs = spec_in(document, name, ()).macs
        reference = Reference(f"spec {short_name(name)}", macs, dense_macs=macs)

    def report() -> AuditReport:
        from iftplan.jaxnn.counting.audit import audit_source

        return audit_source(
            subject,
            inputs,
            reference,
            tolerance=_or(tolerance, Fraction(0) if budget else Fraction(1, 1000)),
            allow=terms["allow"],
            may_stay_uncalled=terms["may_stay_uncalled"],
            cross_check=cross_check,
            dense=dense,
        )

    sources = (subject, name) if name is not None and document is None else (subject,)
    return Audit(f"measuring {subject}", sources, report, "jax")


def _or(tolerance: Fraction | None, usual: Fraction) -> Fraction:
    return usual if tolerance is None else tolerance


def _reference(
    against: str, inputs: tuple[InputSpec, ...], measuring: _Measuring, *, nonzeros: bool
) -> Reference:
    """Another model, counted with the same inputs."""
    from iftplan.nn.application.audit import network_reference
    from iftplan.nn.sources import construct_with_inputs

    base, used = construct_with_inputs(against, inputs, device="cpu" if nonzeros else "meta")
    return network_reference(
        against,
        base,
        used,
        nonzeros=nonzeros,
        operators=measuring["operators"],
        may_stay_uncalled=measuring["may_stay_uncalled"],
    )
