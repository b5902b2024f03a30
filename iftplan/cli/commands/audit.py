"""`iftplan audit`: build it, measure it, hold it against a plan, a model or a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.documents import Document
from iftplan.base.errors import InputError
from iftplan.base.units import Convention, parse_count
from iftplan.cli import completion
from iftplan.cli.arguments import (
    build_for,
    called,
    document_in,
    operators_of,
    plan_in,
    require_torch,
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
from iftplan.models.spec import InputSpec

if TYPE_CHECKING:
    from torch import nn

    from iftplan.models.counting import CountTable
    from iftplan.nn.counting.operators.table import Operator
    from iftplan.plans.audit.audit import AuditReport
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


class Engine(StrEnum):
    """Ways to see a model's operators."""

    META = "meta"
    FVCORE = "fvcore"
    FLOP_COUNTER = "flop_counter"


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
        Engine | None,
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
        engines=tuple(dict.fromkeys((engine or Engine.META, *(Engine if cross_check else ())))),
        second="" if engine else Engine.FVCORE,
        operators=operators_of(allow),
        may_stay_uncalled=tuple(allow_uncalled or ()),
        tolerance=tolerance_of(tolerance),
        nonzeros=nonzeros,
    )
    document = document_in(subject)
    if document is not None:
        if against or budget or nonzeros:
            raise InputError(
                "a plan is audited against its own ledger; --against, --budget and --nonzeros go with a model: iftplan audit MODEL --against PLAN."
            )
        report = _plan_report(_plan_not_spec(document, subject), model, trust, terms)
    else:
        if model is not None:
            raise InputError(f"--model goes with a plan, and {subject} is a model itself; leave it out.")
        report = _model_report(subject, inputs_of(input), against, budget, terms)
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
    from iftplan.plans.audit.audit import Verdict, unmeasured

    if report.verdict is Verdict.FAILED:
        say(*(f"failed: {problem}" for problem in report.problems))
        raise typer.Exit(1)
    if report.verdict is Verdict.UNMEASURED:
        say(*(f"could not measure: {sentence}" for sentence in unmeasured(report)))
        raise typer.Exit(3)


@dataclass(frozen=True, slots=True)
class _Terms:
    """How to measure, and what passes."""

    engines: tuple[str, ...]
    second: str
    operators: Mapping[str, Operator]
    may_stay_uncalled: tuple[str, ...]
    tolerance: Fraction | None
    nonzeros: bool

    def tolerance_or(self, default: Fraction) -> Fraction:
        """The tolerance that was asked for, or what this kind of reference takes."""
        return default if self.tolerance is None else self.tolerance


def _plan_not_spec(document: Document, where: str) -> Plan:
    if document.get("schema") == "iftplan.spec/1":
        source = spec_in(document, where, ()).source
        raise InputError(
            f"{where} is a spec, which holds no network to measure; audit its source instead: iftplan audit {source}."
        )
    return plan_in(document, where)


def _plan_report(plan: Plan, model: str | None, trust: bool, terms: _Terms) -> AuditReport:
    built = build_for(plan, model, trust=trust)
    from iftplan.nn.application.measuring import measure_plan
    from iftplan.plans.audit.audit import audit_plan

    with working(f"building and measuring the plan for {plan.model}"):
        tables = measure_plan(
            plan, built, engines=terms.engines, second=terms.second, operators=terms.operators
        )
    tolerance = terms.tolerance_or(Fraction(1, 10**6))
    return audit_plan(plan, tables, tolerance=tolerance, may_stay_uncalled=terms.may_stay_uncalled)


def _model_report(
    subject: str, inputs: tuple[InputSpec, ...], against: str | None, budget: str | None, terms: _Terms
) -> AuditReport:
    from iftplan.plans.audit.audit import Reference, audit_model, layer_macs
    from iftplan.plans.plan import Scope

    reference = Reference(f"budget {budget}", parse_count(budget), at_most=True) if budget else None
    document = document_in(against) if against else None
    plan = plan_in(document, against) if document is not None and against is not None else None
    if plan is not None:
        inputs = inputs or plan.inputs
        reference = Reference(
            f"plan {called(against or '')}", plan.macs(Scope.MODEL), dense_macs=plan.dense_macs(Scope.MODEL)
        )
    network, inputs = _network(subject, inputs, "cpu" if terms.nonzeros else "meta")
    if plan is not None and inputs == plan.inputs and _is_masked(network):
        return _applied_report(plan, subject, network, terms)
    with working(f"measuring {subject}"):
        tables = _tables(network, inputs, terms.engines, terms.second, terms.operators)
    if against is not None and document is None:
        base, base_inputs = _network(against, inputs, "meta")
        table = _tables(base, base_inputs, (Engine.META,), "", terms.operators)[0]
        reference = Reference(against, table.macs, layer_macs(table, {}), table.macs)
    return audit_model(
        subject,
        tables,
        reference,
        tolerance=terms.tolerance_or(Fraction(0) if budget else Fraction(1, 1000)),
        nonzeros=_kept(network, tables[0]) if terms.nonzeros else None,
        may_stay_uncalled=terms.may_stay_uncalled,
    )


def _is_masked(network: nn.Module) -> bool:
    from iftplan.nn.masks.masked_weights import masked_weights

    return any(True for _ in masked_weights(network))


def _applied_report(plan: Plan, subject: str, network: nn.Module, terms: _Terms) -> AuditReport:
    """A network with masks of its own, layer by layer against the plan that it was made from."""
    from iftplan.nn.application.audit import measure_applied

    with working(f"measuring {subject}"):
        report = measure_applied(
            plan,
            network,
            engines=terms.engines,
            second=terms.second,
            operators=terms.operators,
            tolerance=terms.tolerance_or(Fraction(1, 10**6)),
            may_stay_uncalled=terms.may_stay_uncalled,
        )
    return replace(report, subject=subject)


def _network(
    source: str, inputs: tuple[InputSpec, ...], device: str
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    require_torch(f"building {source}")
    from iftplan.nn.sources import construct

    built = construct(source, device=device)
    inputs = inputs or built.inputs
    if not inputs:
        raise InputError(
            f"{source} does not say what its inputs are; give their shapes, for instance --input 1x3x224x224."
        )
    return built.model, inputs


def _tables(
    network: nn.Module,
    inputs: Sequence[InputSpec],
    engines: Sequence[str],
    second: str,
    operators: Mapping[str, Operator],
) -> tuple[CountTable, ...]:
    from iftplan.nn.counting.opinions import measure_by

    return measure_by(network, inputs, engines, second=second, operators=operators)


def _kept(network: nn.Module, table: CountTable) -> dict[str, Fraction]:
    from iftplan.nn.masks.nonzeros import check_even, nonzeros

    check_even(network, table)

    numel = {name: p.numel() for name, p in network.named_parameters()}
    found = nonzeros(network, from_values=True)
    return {name: Fraction(kept, numel[name]) for name, kept in found.items()}
