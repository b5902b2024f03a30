"""`iftplan audit`: build it, measure it, hold it against a plan, a model or a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from iftplan.base.documents import Document, schema_of
from iftplan.base.errors import InputError
from iftplan.base.units import Convention, parse_count
from iftplan.cli import completion
from iftplan.cli.arguments import (
    document_in,
    operators_of,
    plan_in,
    require_jax,
    require_torch,
    short_name,
    spec_in,
)
from iftplan.cli.help import MODEL_PANEL
from iftplan.cli.kept_answers import kept_folder, made_here
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
from iftplan.cli.output import Format, emit, say, say_next, working
from iftplan.cli.process import lasting_imports, same_command
from iftplan.cli.source_lines import source_place
from iftplan.models.counting import ENGINES, EngineName
from iftplan.models.spec import Framework, InputSpec

if TYPE_CHECKING:
    from torch.nn import Module

    from iftplan.models.dynamic.selection import InputSelection
    from iftplan.nn.counting.operators.registry import Operator
    from iftplan.plans.audit.audit import AuditReport, Reference
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
    if attention and (against or engine not in (None, "meta")):
        full = "--against" if against else f"--engine {engine}"
        raise InputError(
            f"{full} counts every query with every key, so --attention does not go with it. Leave one of them out."
        )
    terms = _Terms(
        engines=tuple(dict.fromkeys((engine or "meta", *(ENGINES if cross_check else ())))),
        second="" if engine else "fvcore",
        allow=tuple(allow or ()),
        may_stay_uncalled=tuple(allow_uncalled or ()),
    )
    allowed = tolerance_of(tolerance)
    measured = _on_data(data, samples, selection, effective_budget)
    if attention and measured is not None:
        raise InputError(
            "--data counts every query with every key, so --attention does not go with it. Leave one of them out."
        )
    document = document_in(subject)
    library = framework or _framework(document, model, subject)
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
        plan = _plan_not_spec(document, subject)
        trusted = trust or (model is None and made_here(document, no_cache))
        audited = _of_plan(plan, model, trusted, allowed, terms, library)
        named: Document = {"plan": document, "model": model, "trust": trusted}
    else:
        if model is not None:
            raise InputError(f"--model belongs to a plan, and {subject} is a model. Leave it out.")
        other = document_in(against) if against else None
        if library == "jax":
            audited = _of_jax_model(
                subject, inputs_of(input), (against, other), budget, allowed, terms, cross_check
            )
        else:
            audited = _of_model(
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
    report = _kept_or_made(
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


def _plan_not_spec(document: Document, where: str) -> Plan:
    if document.get("schema") == "iftplan.spec/1":
        source = spec_in(document, where, ()).source
        raise InputError(
            f"{where} is a spec and holds no network to measure. Audit its source: iftplan audit {source}."
        )
    return plan_in(document, where)


class _Terms(TypedDict):
    """How to measure, and what passes."""

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


def _measuring(terms: _Terms) -> _Measuring:
    return {
        "engines": terms["engines"],
        "second": terms["second"],
        "operators": operators_of(terms["allow"]),
        "may_stay_uncalled": terms["may_stay_uncalled"],
    }


@dataclass(frozen=True, slots=True)
class _Audit:
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


def _kept_or_made(audit: _Audit, request: Document, no_cache: bool) -> AuditReport:
    """The report of an earlier command while it would come out the same, or a new one."""
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


def _framework(document: Document | None, model: str | None, subject: str) -> Framework:
    """Library of the model that is audited, or that a plan was made for."""
    from iftplan.models.frameworks import framework_of

    if document is None:
        return framework_of(subject)
    return framework_of(model or str(document.get("model", "")))


def _of_plan(
    plan: Plan,
    model: str | None,
    trust: bool,
    tolerance: Fraction | None,
    terms: _Terms,
    framework: Framework,
) -> _Audit:
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
    return _Audit(doing, sources, of_jax if framework == "jax" else of_torch, framework)


def _of_model(
    subject: str,
    inputs: tuple[InputSpec, ...],
    against: tuple[str | None, Document | None],
    budget: str | None,
    nonzeros: bool,
    redistributed: bool,
    tolerance: Fraction | None,
    terms: _Terms,
    measured: _OnData | None,
    attention: str,
) -> _Audit:
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
        return _with_activity(static(network, used), network, used, measured, masked, terms)

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
            reference = _reference(name, used, measuring["operators"])
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
    return _Audit(f"measuring {subject}", sources, report)


def _of_jax_model(
    subject: str,
    inputs: tuple[InputSpec, ...],
    against: tuple[str | None, Document | None],
    budget: str | None,
    tolerance: Fraction | None,
    terms: _Terms,
    cross_check: bool,
) -> _Audit:
    """Audit of a JAX model, held against a budget, a plan or spec of either framework, or another JAX model."""
    from iftplan.plans.audit.audit import Reference

    name, document = against
    reference: str | Reference | None = Reference.of_budget(budget) if budget else name
    if name and document is not None and schema_of(document, name) == "plan":
        reference = Reference.of_plan(plan_in(document, name), f"plan {short_name(name)}")
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
        )

    sources = (subject, name) if name is not None and document is None else (subject,)
    return _Audit(f"measuring {subject}", sources, report, "jax")


@dataclass(frozen=True, slots=True)
class _OnData:
    """What to measure effective MACs on.

    Attributes:
        path: of the data.
        samples: the most of them.
        selection: rule by which inputs are set to zero.
        budget: the most effective MACs; None for no limit.
    """

    path: str
    samples: int
    selection: InputSelection
    budget: int | None


def _on_data(data: str | None, samples: int, selection: str, budget: str | None) -> _OnData | None:
    """What the options ask to measure on data; None for nothing."""
    from iftplan.models.dynamic.selection import parse_selection

    if data is None:
        if selection != "zeros" or budget is not None:
            option = "--selection" if budget is None else "--effective-budget"
            raise InputError(f"{option} is about activations, which need data. Name them: --data PATH.")
        return None
    return _OnData(data, samples, parse_selection(selection), None if budget is None else parse_count(budget))


def _with_activity(
    report: AuditReport,
    network: Module,
    inputs: tuple[InputSpec, ...],
    asked: _OnData,
    nonzeros: bool,
    terms: _Terms,
) -> AuditReport:
    """The report with effective MACs beside the static ones.

    Args:
        report: static.
        network: with values.
        inputs: that it is counted with.
        asked: what to measure.
        nonzeros: whether the static counts leave out weights that are zero.
        terms: how to measure.
    """
    from iftplan.nn.training.measures.activity import activation_sparsity, data_batches
    from iftplan.plans.audit.effective import with_effective

    batches, name = data_batches(asked.path, inputs, asked.samples, say)
    operators = operators_of(terms["allow"])
    found = activation_sparsity(
        network, batches, selection=asked.selection, nonzeros=nonzeros, operators=operators
    )
    return with_effective(report, found, name, asked.budget)


def _or(tolerance: Fraction | None, usual: Fraction) -> Fraction:
    return usual if tolerance is None else tolerance


def _reference(against: str, inputs: tuple[InputSpec, ...], operators: Mapping[str, Operator]) -> Reference:
    """Another model, counted with the same inputs."""
    from iftplan.nn.counting.measure import measure
    from iftplan.nn.sources import construct_with_inputs
    from iftplan.plans.audit.audit import Reference

    base, used = construct_with_inputs(against, inputs, device="meta")
    return Reference.of_table(measure(base, used, operators=operators), against)
