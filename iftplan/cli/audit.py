"""`iftplan audit`: build it, measure it, hold it against a plan, a model or a budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.audits import AuditReport, Verdict, audit_model, audit_plan, layer_macs
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
from iftplan.cli.subjects import build_for, called, document_in, operators_of, plan_in, require_torch
from iftplan.errors import InputError
from iftplan.plans import Plan, Scope
from iftplan.report.audits import audit_table, summary_table
from iftplan.reportfile import audit_document
from iftplan.spec import InputSpec
from iftplan.units import Convention, parse_count

if TYPE_CHECKING:
    from torch import nn

    from iftplan.counting import CountTable
    from iftplan.nn.operators import Operator

EXAMPLE = """
Examples:

  $ iftplan audit wide75.json --cross-check -o report.json

  dense, scope layers                             555 468 800 MACs
  expected                                        555 468 800 MACs
  measured                                        555 468 800 MACs
  ratio to dense, scope layers                            1.000000
  deviation from expected             +0.000e+00 (tolerance 1e-06)
  counter closed_form, scope model                555 468 800 MACs
  counter meta, scope model                       555 468 800 MACs
  counter fvcore, scope model                     555 468 800 MACs
  counter flop_counter, scope model               555 468 800 MACs
  elementwise work, not in the MACs        2.835 M output elements
  PASSED
  assumed: weights under a mask count by the plan's nnz (planned, not measured)
  written: report.json

  $ iftplan audit zoo:resnet18 --budget 1.9G -o report.json

  at most                                   1 900 000 000 MACs
  measured                                  1 814 073 344 MACs
  deviation from expected             -4.522e-02 (tolerance 0)
  counter meta, scope model                 1 814 073 344 MACs
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
            metavar="PLAN|MODEL", help="A plan file (- for stdin), or a model as in iftplan models."
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
    engine: Annotated[Engine, typer.Option("--engine", help="What counts.")] = Engine.META,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Count with all three engines and require equal integers.")
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
    operators = operators_of(allow)
    uncalled = tuple(allow_uncalled or ())
    engines = _engines(engine, cross_check)
    tolerated = tolerance_of(tolerance)
    document = document_in(subject)
    if document is not None and document.get("schema") == "iftplan.spec/1":
        from iftplan.specfile import parse_spec

        spec = parse_spec(document, subject)
        raise InputError(
            f"{subject} is a spec, which holds no network to measure; audit its source instead: iftplan audit {spec.source}."
        )
    if document is not None:
        if against or budget or nonzeros:
            raise InputError(
                "a plan is audited against its own ledger; --against, --budget and --nonzeros go with a model: iftplan audit MODEL --against PLAN."
            )
        report = _plan_report(
            plan_in(document, subject), model, trust, engines, tolerated, operators, uncalled
        )
    else:
        if model is not None:
            raise InputError(f"--model goes with a plan, and {subject} is a model itself; leave it out.")
        report = _model_report(
            subject,
            inputs_of(input),
            against,
            budget,
            trust,
            engines,
            tolerated,
            operators,
            uncalled,
            nonzeros,
        )
    summary = summary_table(report, convention)
    emit(
        [audit_table(report, convention), summary],
        lambda: audit_document(report, convention),
        form,
        output,
        summary=[summary],
    )
    _exit(report)


def _exit(report: AuditReport) -> None:
    if report.verdict is Verdict.FAILED:
        say(*(f"failed: {problem}" for problem in report.problems))
        raise typer.Exit(1)
    if report.verdict is Verdict.UNMEASURED:
        from iftplan.audits import unmeasured

        say(*(f"could not measure: {sentence}" for sentence in unmeasured(report)))
        raise typer.Exit(3)


def _engines(engine: Engine, cross_check: bool) -> tuple[str, ...]:
    others = tuple(e.value for e in Engine if e is not engine) if cross_check else ()
    return (engine.value, *others)


def _plan_report(
    plan: Plan,
    model: str | None,
    trust: bool,
    engines: Sequence[str],
    tolerance: Fraction | None,
    operators: Mapping[str, Operator],
    uncalled: Collection[str],
) -> AuditReport:
    built = build_for(plan, model, trust=trust)
    from iftplan.nn.measure_plan import measure_plan

    with working(f"building and measuring the plan for {plan.model}"):
        tables = measure_plan(plan, built, engines=engines, operators=operators)
    return audit_plan(
        plan,
        tables,
        tolerance=Fraction(1, 10**6) if tolerance is None else tolerance,
        may_stay_uncalled=uncalled,
    )


def _model_report(
    subject: str,
    inputs: tuple[InputSpec, ...],
    against: str | None,
    budget: str | None,
    trust: bool,
    engines: Sequence[str],
    tolerance: Fraction | None,
    operators: Mapping[str, Operator],
    uncalled: Collection[str],
    nonzeros: bool,
) -> AuditReport:
    expected = parse_count(budget) if budget else None
    reference = document_in(against) if against else None
    plan = plan_in(reference, against) if reference is not None and against else None
    network, inputs = _network(subject, inputs or (plan.inputs if plan else ()), nonzeros)
    with working(f"measuring {subject}"):
        tables = _tables(network, inputs, engines, operators)
    kept = _kept(network) if nonzeros else {}
    default = Fraction(0) if budget else Fraction(1, 1000)
    tolerated = default if tolerance is None else tolerance
    if plan is not None:
        return audit_model(
            subject, tables, reference=f"plan {called(against or '')}", expected_macs=plan.macs(Scope.MODEL),
            dense_macs=plan.dense_macs(Scope.MODEL), tolerance=tolerated, nonzeros=kept, may_stay_uncalled=uncalled,
        )  # fmt: skip
    if against:
        base, base_inputs = _network(against, inputs, False)
        table = _tables(base, base_inputs, ("meta",), operators)[0]
        return audit_model(
            subject, tables, reference=against, expected_macs=table.macs, expected_layers=layer_macs(table, {}),
            dense_macs=table.macs, tolerance=tolerated, nonzeros=kept, may_stay_uncalled=uncalled,
        )  # fmt: skip
    return audit_model(
        subject,
        tables,
        reference=f"budget {budget}" if budget else "",
        expected_macs=expected,
        tolerance=tolerated,
        at_most=budget is not None,
        nonzeros=kept,
        may_stay_uncalled=uncalled,
    )


def _network(
    source: str, inputs: tuple[InputSpec, ...], real: bool
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    require_torch(f"building {source}")
    from iftplan.nn.sources import construct

    built = construct(source, device="cpu" if real else "meta")
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
    operators: Mapping[str, Operator],
) -> list[CountTable]:
    from iftplan.nn.measure import measure

    return [measure(network, inputs, engine=engine, operators=operators) for engine in engines]


def _kept(network: nn.Module) -> dict[str, Fraction]:
    from iftplan.nn.nonzeros import nonzeros

    numel = {name: p.numel() for name, p in network.named_parameters()}
    return {name: Fraction(kept, numel[name]) for name, kept in nonzeros(network).items()}
