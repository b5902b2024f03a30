"""`iftplan audit`: build it, measure it, hold it against a plan, a model or a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from iftplan.base.documents import Document
from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.arguments import (
    document_in,
    operators_of,
    plan_in,
    require_torch,
    short_name,
    spec_in,
)
from iftplan.cli.options import (
    AllowOption,
    ConventionOption,
    FormatOption,
    InputOption,
    OutputOption,
    inputs_of,
    tolerance_of,
)
from iftplan.cli.output import emit, say, working
from iftplan.cli.source_lines import source_place
from iftplan.models.counting import ENGINES, EngineName
from iftplan.models.spec import InputSpec

if TYPE_CHECKING:
    from torch import nn

    from iftplan.nn.counting.operators.registry import Operator
    from iftplan.plans.audit.audit import AuditReport, Reference
    from iftplan.plans.plan import Plan

EXAMPLE = """
Examples:

  $ iftplan audit wide75.json -o report.json

  dense, scope layers                             555 468 800 MACs
  expected                                        555 468 800 MACs
  measured                                        555 468 800 MACs
  ratio to dense, scope layers                            1.000000
  deviation from expected             +0.000e+00 (tolerance 1e-06)
  counter closed_form, scope model                555 468 800 MACs
  counter meta, scope model                       555 468 800 MACs
  counter fvcore, scope model                     555 468 800 MACs
  elementwise work, not in the MACs        2.835 M output elements
  PASSED
  assumed: weights under a mask count by the plan's nnz (planned, not measured)
  written: report.json

  $ iftplan audit zoo:resnet18 --budget 1.9G -o report.json

  at most                                   1 900 000 000 MACs
  measured                                  1 814 073 344 MACs
  deviation from expected             -4.522e-02 (tolerance 0)
  counter meta, scope model                 1 814 073 344 MACs
  counter fvcore, scope model               1 814 073 344 MACs
  elementwise work, not in the MACs    5.746 M output elements
  PASSED
  written: report.json

Exit status: 0 passed, 1 failed, 2 bad input, 3 could not measure, 4 the plan is stale.
"""


def command(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="PLAN|MODEL",
            autocompletion=completion.models,
            help="A plan file (- for stdin), or a model as in iftplan models.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Build the plan's model from this source.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Hold the model against a plan or another model.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Hold it against a budget such as 560M (MACs).")
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            "--tolerance",
            help="Largest relative difference that passes (plans 1e-6, models 1e-3, budgets 0).",
        ),
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            "--engine",
            help="Count with this engine alone: meta (this tool's own), fvcore, or flop_counter (PyTorch's). By default meta counts and fvcore checks.",
        ),
    ] = None,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Count with all three engines; each must run the model.")
    ] = False,
    input: InputOption = None,
    allow: AllowOption = None,
    allow_uncalled: Annotated[
        list[str] | None,
        typer.Option("--allow-uncalled", help="Vouch for a module that the pass does not use."),
    ] = None,
    nonzeros: Annotated[
        bool,
        typer.Option(
            "--nonzeros", help="Build on the CPU and count each weight by its nonzeros and pruning masks."
        ),
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the Python factory that the plan file names.")
    ] = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Measure a plan or a model, layer by layer; fail when it is not what it should be."""
    if against and budget:
        raise InputError("--against and --budget are two references; give one of them.")
    terms = _Terms(
        engines=tuple(dict.fromkeys((engine or "meta", *(ENGINES if cross_check else ())))),
        second="" if engine else "fvcore",
        operators=operators_of(allow),
        may_stay_uncalled=tuple(allow_uncalled or ()),
    )
    allowed = tolerance_of(tolerance)
    document = document_in(subject)
    if document is not None:
        if against or budget or nonzeros:
            raise InputError(
                "a plan is audited against its own ledger; --against, --budget and --nonzeros go with a model: iftplan audit MODEL --against PLAN."
            )
        report = _plan_report(_plan_not_spec(document, subject), model, trust, allowed, terms)
    else:
        if model is not None:
            raise InputError(f"--model goes with a plan, and {subject} is a model itself; leave it out.")
        report = _model_report(subject, inputs_of(input), against, budget, nonzeros, allowed, terms)
    from iftplan.plans.audit.document import audit_document
    from iftplan.plans.audit.tables import audit_page, audit_table, summary_table

    summary = summary_table(report, convention)
    emit(
        [audit_table(report, convention), summary],
        lambda: audit_document(report, convention),
        form,
        output,
        summary=[summary],
        page=lambda: audit_page(report, convention, source_place(model or subject)),
    )
    _exit(report)


def _exit(report: AuditReport) -> None:
    from iftplan.plans.audit.audit import Verdict, unmeasured_sentences

    if report.verdict is Verdict.FAILED:
        say(*(f"failed: {problem}" for problem in report.problems))
        raise typer.Exit(1)
    if report.verdict is Verdict.UNMEASURED:
        say(*(f"could not measure: {sentence}" for sentence in unmeasured_sentences(report)))
        raise typer.Exit(3)


def _plan_not_spec(document: Document, where: str) -> Plan:
    if document.get("schema") == "iftplan.spec/1":
        source = spec_in(document, where, ()).source
        raise InputError(
            f"{where} is a spec, which holds no network to measure; audit its source instead: iftplan audit {source}."
        )
    return plan_in(document, where)


class _Terms(TypedDict):
    """How to measure, and what passes."""

    engines: tuple[str, ...]
    second: str
    operators: Mapping[str, Operator]
    may_stay_uncalled: tuple[str, ...]


def _plan_report(
    plan: Plan, model: str | None, trust: bool, tolerance: Fraction | None, terms: _Terms
) -> AuditReport:
    require_torch(f"building {model or plan.model}")
    from iftplan.nn.application.audit import PLAN_TOLERANCE, audit

    with working(f"building and measuring the plan for {plan.model}"):
        return audit(plan, model, trust=trust, tolerance=_or(tolerance, PLAN_TOLERANCE), **terms)


def _model_report(
    subject: str,
    inputs: tuple[InputSpec, ...],
    against: str | None,
    budget: str | None,
    nonzeros: bool,
    tolerance: Fraction | None,
    terms: _Terms,
) -> AuditReport:
    from iftplan.plans.audit.audit import Reference

    reference = Reference.of_budget(budget) if budget else None
    document = document_in(against) if against else None
    plan = plan_in(document, against) if document is not None and against is not None else None
    if plan is not None:
        inputs = inputs or plan.inputs
        reference = Reference.of_plan(plan, f"plan {short_name(against or '')}")
    network, inputs = _network(subject, inputs, "cpu" if nonzeros else "meta")
    from iftplan.nn.application.audit import PLAN_TOLERANCE, applied_here, audit_network, measure_applied

    with working(f"measuring {subject}"):
        if plan is not None and applied_here(plan, network, inputs):
            report = measure_applied(plan, network, tolerance=_or(tolerance, PLAN_TOLERANCE), **terms)
            return replace(report, subject=subject)
        if against is not None and plan is None:
            reference = _reference(against, inputs, terms["operators"])
        return audit_network(
            subject,
            network,
            inputs,
            reference,
            nonzeros=nonzeros,
            tolerance=_or(tolerance, Fraction(0) if budget else Fraction(1, 1000)),
            **terms,
        )


def _or(tolerance: Fraction | None, usual: Fraction) -> Fraction:
    return usual if tolerance is None else tolerance


def _reference(against: str, inputs: tuple[InputSpec, ...], operators: Mapping[str, Operator]) -> Reference:
    """Another model, counted with the same inputs."""
    from iftplan.nn.counting.measure import measure
    from iftplan.plans.audit.audit import Reference

    base, base_inputs = _network(against, inputs, "meta")
    return Reference.of_table(measure(base, base_inputs, operators=operators), against)


def _network(
    source: str, inputs: tuple[InputSpec, ...], device: str
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    require_torch(f"building {source}")
    from iftplan.nn.sources import construct_with_inputs

    return construct_with_inputs(source, inputs, device=device)
