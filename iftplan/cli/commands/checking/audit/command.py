"""`iftplan audit`: build it, measure it, hold it against a plan, a model or a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.documents import Document, schema_of
from iftplan.base.errors import InputError
from iftplan.base.units import Convention, parse_count
from iftplan.cli import completion
from iftplan.cli.arguments import (
    document_in,
    plan_in,
    spec_in,
)
from iftplan.cli.commands.checking.audit.activations import on_data
from iftplan.cli.commands.checking.audit.audits import (
    Terms,
    audit_of_jax_model,
    audit_of_model,
    audit_of_plan,
    framework_asked,
    kept_or_made,
)
from iftplan.cli.help import MODEL_PANEL
from iftplan.cli.kept_answers import made_here
from iftplan.cli.options import (
    AllowOption,
    ConventionOption,
    FormatOption,
    FrameworkOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    PlanModelOption,
    TrustOption,
    inputs_of,
    tolerance_of,
)
from iftplan.cli.output import Format, emit, say, say_next
from iftplan.cli.process import same_command
from iftplan.cli.source_lines import source_place
from iftplan.models.counting import ENGINES, EngineName

if TYPE_CHECKING:
    from iftplan.models.spec import InputSpec
    from iftplan.plans.audit.audit import AuditReport
    from iftplan.plans.plan import Plan

DATA_PANEL = "Activations"

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
            help="A plan file (- for stdin), or a model: zoo:NAME, file.py:factory …",
        ),
    ],
    model: PlanModelOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="PLAN|MODEL",
            autocompletion=completion.models,
            help="Plan or model that the model must cost as much as.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="MACS", help="Most MACs that the model may cost, such as 560M."),
    ] = None,
    attention: Annotated[
        str,
        typer.Option(
            "--attention",
            metavar="PATTERN",
            help="Of a model: count attention by the pairs that its own masks keep (own), or by those of a pattern within them, such as window:256, with the full count beside.",
            show_default="every query with every key",
        ),
    ] = "",
    tolerance: Annotated[
        str | None,
        typer.Option(
            "--tolerance",
            metavar="RATIO",
            help="Largest relative difference that passes.",
            show_default="1e-6 from a plan, 1e-3 from a model, 0 above a budget",
        ),
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            "--engine",
            help="Count with one engine alone: meta (iftplan's own), fvcore or flop_counter (PyTorch's).",
            show_default="meta, checked by fvcore",
        ),
    ] = None,
    cross_check: Annotated[
        bool,
        typer.Option(
            "--cross-check",
            help="Count with all three engines and require equal MACs; of a model in JAX, explain how XLA's cost analysis differs.",
        ),
    ] = False,
    framework: FrameworkOption = None,
    input: InputOption = None,
    allow: AllowOption = None,
    allow_uncalled: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-uncalled",
            metavar="MODULE",
            help="Module that the forward pass may leave unused; repeat it for more.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    nonzeros: Annotated[
        bool,
        typer.Option(
            "--nonzeros",
            help="Count only non-zero weights, pruning masks included; the model is built on the CPU.",
        ),
    ] = False,
    redistributed: Annotated[
        bool,
        typer.Option(
            "--redistributed",
            help="With --against PLAN: training moved weights between layers, as SNFS does; compare only the total.",
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Data to measure effective MACs on, beside the static ones: digits, a folder of images, a .txt file, tokens …; the model keeps its own weights.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, help="Samples of the test part to look at.", rich_help_panel=DATA_PANEL
        ),
    ] = 256,
    selection: Annotated[
        str,
        typer.Option(
            "--selection",
            metavar="RULE",
            help="Inputs that are set to zero: zeros (none), teal:0.5 or wina:0.5 (the smaller half of each token's), cett:0.2 (by thresholds that change outputs by a fifth); @'*.mlp.*' for some modules.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = "zeros",
    effective_budget: Annotated[
        str | None,
        typer.Option(
            "--effective-budget",
            metavar="MACS",
            help="Most effective MACs that the model may need on the data.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    trust: TrustOption = False,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Measure a plan or a model and compare it with its target cost.

    The target of a plan is its own budget; a model has --against or --budget, and without them is only measured.
    """
    if against and budget:
        raise InputError("--against and --budget cannot be combined. Give one of them.")
    if budget:
        parse_count(budget)  # before anything is read
    if attention and (against or engine not in (None, "meta")):
        full = "--against" if against else f"--engine {engine}"
        raise InputError(
            f"{full} counts every query with every key, so --attention does not go with it. Leave one of them out."
        )
    terms = Terms(
        engines=tuple(dict.fromkeys((engine or "meta", *(ENGINES if cross_check else ())))),
        second="" if engine else "fvcore",
        allow=tuple(allow or ()),
        may_stay_uncalled=tuple(allow_uncalled or ()),
    )
    allowed = tolerance_of(tolerance)
    measured = on_data(data, samples, selection, effective_budget)
    if attention and measured is not None:
        raise InputError(
            "--data counts every query with every key, so --attention does not go with it. Leave one of them out."
        )
    document = document_in(subject)
    library = framework or framework_asked(document, model, subject)
    if library == "jax":
        torch_alone = {
            "--engine": engine is not None,
            "--nonzeros": nonzeros,
            "--redistributed": redistributed,
            "--data": measured is not None,
            "--attention": bool(attention),
        }
        if wrong := [option for option, given in torch_alone.items() if given]:
            raise InputError(
                f"{' and '.join(wrong)} cannot be combined with a model in JAX, whose jaxpr is counted as it is. Leave it out."
            )
    if document is not None:
        if measured is not None:
            raise InputError(
                "--data needs a network with weights, and a plan has none. Name the network: iftplan audit MODEL --data PATH."
            )
        if against or budget or nonzeros or redistributed or attention:
            raise InputError(
                "a plan is audited against its own budget, so --against, --budget, --attention and --nonzeros do not apply. To audit a trained network, name it: iftplan audit MODEL --against PLAN --nonzeros."
            )
        plan = _plan_not_spec(document, subject, inputs_of(input))
        trusted = trust or (model is None and made_here(document, no_cache))
        audited = audit_of_plan(plan, model, trusted, allowed, terms, library)
        named: Document = {"plan": document, "model": model, "trust": trusted}
    else:
        if model is not None:
            raise InputError(f"--model belongs to a plan, and {subject} is a model. Leave it out.")
        other = document_in(against) if against else None
        if redistributed and (other is None or schema_of(other, against or "") != "plan"):
            raise InputError(
                "--redistributed says how a plan's weights moved, so it needs --against PLAN. Leave it out."
            )
        if library == "jax":
            audited = audit_of_jax_model(
                subject, inputs_of(input), (against, other), budget, allowed, terms, cross_check
            )
        else:
            audited = audit_of_model(
                subject,
                inputs_of(input),
                (against, other),
                budget,
                nonzeros,
                redistributed,
                allowed,
                terms,
                measured,
                attention,
            )
        named = {
            "source": subject,
            "inputs": input or [],
            "against": against,
            "reference": other,
            "budget": budget,
            "redistributed": redistributed,
            **({"attention": attention} if attention else {}),
            **({"framework": library, "cross_check": cross_check} if library == "jax" else {}),
        }
    report = kept_or_made(
        audited,
        {"task": "audit", "tolerance": tolerance, **terms, **named},
        no_cache or nonzeros or measured is not None,
    )
    _emit(report, model or subject, form, output, convention)
    if document is not None:
        named_model = ["--model", model] if model else ["--trust"] if trust else []
        words = _after_plan(report, subject, output, named_model)
    else:
        words = _after_model(report, [subject, *(w for i in input or () for w in ("--input", i))], against)
    say_next(words, form, output)
    _end(report)


def _emit(
    report: AuditReport, source: str, form: Format | None, output: str | None, convention: Convention
) -> None:
    """Show a report, and say what is wrong.

    Args:
        report: of the audit.
        source: of the model that was measured.
        form: of the output.
        output: its file.
        convention: of counts.
    """
    from iftplan.plans.audit.document import audit_document
    from iftplan.plans.audit.tables import audit_page, audit_table, summary_table

    summary = summary_table(report, convention)
    emit(
        [audit_table(report, convention), summary],
        lambda: audit_document(report, convention),
        form,
        output,
        summary=[summary],
        page=lambda: audit_page(report, convention, source_place(source)),
    )
    _say_problems(report)


def _end(report: AuditReport) -> None:
    """End with the status of a report that isn't good."""
    if status := _STATUS.get(report.verdict.value):
        raise typer.Exit(status)


_STATUS = {"failed": 1, "could not measure": 3}


def _say_problems(report: AuditReport) -> None:
    from iftplan.plans.audit.audit import Verdict, unmeasured_sentences

    if report.verdict is Verdict.FAILED:
        say(*(f"failed: {problem}" for problem in report.problems))
    if report.verdict is Verdict.UNMEASURED:
        say(*(f"could not measure: {sentence}" for sentence in unmeasured_sentences(report)))


def _after_plan(report: AuditReport, plan: str, output: str | None, model: Sequence[str]) -> list[str]:
    """Words of the command after the audit of a plan: training it, or what is different layer by layer."""
    from iftplan.plans.audit.audit import Verdict

    if plan == "-":
        return []
    match report.verdict:
        case Verdict.PASSED:
            data = [] if report.subject.startswith("zoo:digits-cnn ") else ["--data", "PATH"]
            return ["train", plan, *model, *data, "--method", "rigl"]
        case Verdict.FAILED if output not in (None, "-"):
            return ["diff", plan, output]
        case Verdict.FAILED:
            return same_command("-o", "report.json")
    return []  # what could not be measured is said with the option that helps


def _after_model(report: AuditReport, model: Sequence[str], against: str | None) -> list[str]:
    """Words of the command after the audit of a model: its plan, its check in CI, or what is different.

    Args:
        report: of the audit.
        model: its source, and its inputs as options.
        against: the plan or model that it was compared with.
    """
    from iftplan.plans.audit.audit import Verdict

    match report.verdict:
        case Verdict.REPORTED:
            return ["plan", *model, "--transform", "wide", "--sparsity", "0.75", "-o", "plan.json"]
        case Verdict.PASSED if report.at_most:
            return ["check"]
        case Verdict.FAILED if against and against != "-":
            return ["diff", against, *model]
    return []


def _plan_not_spec(document: Document, where: str, inputs: Sequence[InputSpec]) -> Plan:
    if document.get("schema") == "iftplan.spec/1":
        source = spec_in(document, where, ()).source
        raise InputError(
            f"{where} is a spec and holds no network to measure. Audit its source: iftplan audit {source}."
        )
    return plan_in(document, where, inputs)
