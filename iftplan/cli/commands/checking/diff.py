"""`iftplan diff`: what changed between two models, plans or audit reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.documents import schema_of
from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.arguments import document_in, plan_in, short_name, spec_in, spec_of
from iftplan.cli.commands.checking.check import (
    ConfigOption,
    JobsOption,
    at_revision,
    cache_folder,
    configuration,
    measure_models,
    show_report,
)
from iftplan.cli.options import (
    ConventionOption,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    inputs_of,
    split,
)
from iftplan.cli.output import Format, emit, say

if TYPE_CHECKING:
    from iftplan.checks.configuration import Configuration, ConfiguredModel
    from iftplan.checks.findings import CheckReport
    from iftplan.models.spec import InputSpec, ModelSpec
    from iftplan.plans.audit.diff import LayerCosts

EXAMPLE = """
Example:

  $ iftplan diff zoo:resnet18-cifar zoo:resnet34-cifar

  zoo:resnet18-cifar → zoo:resnet34-cifar
  layer                                                  change   base MACs    head MACs    difference
  ────────────────────────────────────────────────────────────────────────────────────────────────────
  resnet.encoder.stages.0.layers.2.layer.0.convolution   added            0   37 748 736   +37 748 736
  resnet.encoder.stages.0.layers.2.layer.1.convolution   added            0   37 748 736   +37 748 736
  …

With --base main, the configured models (or those named) are compared between that git revision and the working tree.
"""


def command(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BASE HEAD | [MODEL]...",
            autocompletion=completion.models,
            help="Two models, plans or audit reports, or two runs or checkpoints, whose weights are compared. With --base, the models to compare (default: those of the configuration).",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="REV",
            help="Git revision to compare the working tree with, such as main or HEAD~1.",
        ),
    ] = None,
    config: ConfigOption = None,
    jobs: JobsOption = None,
    input: InputOption = None,
    no_cache: NoCacheOption = False,
    threshold: Annotated[
        str,
        typer.Option(
            "--threshold",
            metavar="LIST",
            help="With two runs: sizes of a change above which a weight has moved.",
            show_default="0,1e-5",
        ),
    ] = "",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with status 1 if anything differs.")
    ] = False,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Show what changed between two models, plans or git revisions.

    Layers are listed by the size of the change, largest first. Of two runs, it shows which weights training moved.
    """
    inputs = inputs_of(input)
    if revision is not None:
        if threshold:
            raise InputError(
                "--threshold is for the weights of two runs or checkpoints, and --base compares costs. Leave one of them out."
            )
        from iftplan.checks.tables import drift_tables

        report = _revisions(revision, subjects or (), config, inputs, jobs, no_cache)
        show_report(report, form, output, convention, tables=drift_tables(report, convention))
        if exit_code and any(model.differs for model in report.models):
            say(f"the working tree differs from {revision}")
            raise typer.Exit(1)
        return
    if subjects is None or len(subjects) != 2:
        raise InputError(
            f"diff compares BASE with HEAD, and {_given(subjects)} given. Name two models, plans or reports, or a git revision with --base REV."
        )
    base, head = subjects
    _refuse_two_revisions(base, head)
    if base == head == "-":
        raise InputError(
            "BASE and HEAD are both -, and stdin can be read only once. Name a file for one of them."
        )
    if _are_trained(base, head, threshold):
        _show_updates(base, head, threshold, form, output, exit_code=exit_code)
        return
    from iftplan.plans.audit.diff import diff, diff_document
    from iftplan.plans.audit.tables import diff_page, diff_table

    found = diff(_ledger(base, inputs, no_cache), _ledger(head, inputs, no_cache))
    if (_BY_PAIRS in found.base.name) != (_BY_PAIRS in found.head.name):
        say("note: one of the two counts attention by pairs, and the other every query with every key")
    table = diff_table(found, convention)
    emit(
        [table],
        lambda: diff_document(found, convention),
        form,
        output,
        summary=[table],
        page=lambda: diff_page(found, convention),
    )
    if exit_code and found.changes:
        say("1 layer differs" if len(found.changes) == 1 else f"{len(found.changes)} layers differ")
        raise typer.Exit(1)


def _are_trained(base: str, head: str, threshold: str) -> bool:
    """Whether both are runs or checkpoints.

    Raises:
        InputError: only one of them is, or thresholds are given for models.
    """
    trained = [_is_trained(Path(text)) for text in (base, head)]
    if any(trained) and not all(trained):
        other = head if trained[0] else base
        raise InputError(
            f"{base if trained[0] else head} holds trained weights, and {other} does not. Compare two runs or checkpoints, or two plans: each run has its plan.json."
        )
    if threshold and not any(trained):
        raise InputError(
            f"--threshold is for the weights of two runs or checkpoints, and {base} is none. Leave it out to compare costs."
        )
    return all(trained)


def _is_trained(path: Path) -> bool:
    return (path / "run.json").is_file() or (path.name.startswith("checkpoint-") and path.exists())


def _show_updates(
    base: str, head: str, threshold: str, form: Format | None, output: str | None, *, exit_code: bool
) -> None:
    from iftplan.cli.arguments import require_torch
    from iftplan.plans.audit.updates import updates_document, updates_table

    limits = [_limit(text) for text in split(threshold)]
    require_torch("comparing weights")
    from iftplan.nn.masking.measures.updates import THRESHOLDS, weight_updates
    from iftplan.nn.training.from_checkpoint import checkpoint_at

    before, after = (checkpoint_at(Path(text), say)[1]["model"] for text in (base, head))
    found = weight_updates(before, after, limits or THRESHOLDS, names=(base, head))
    emit([updates_table(found)], lambda: updates_document(found), form, output, records=found.records)
    if exit_code and found.total.moved[0]:
        say(f"{found.total.moved[0]} weights differ")
        raise typer.Exit(1)


def _limit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InputError(
            f"--threshold {text!r} is no size of a change. Give numbers that are not negative, such as --threshold 0,1e-5."
        )
    return value


_BY_PAIRS = "by pairs"
"""How the name of a plan or report says that its attention is counted so."""


def _given(subjects: Sequence[str] | None) -> str:
    match subjects:
        case None | []:
            return "none is"
        case [one]:
            return f"only {one!r} is"
        case _:
            return f"{len(subjects)}, {', '.join(subjects)}, are"


def _revisions(
    revision: str,
    names: Sequence[str],
    config: str | None,
    inputs: tuple[InputSpec, ...],
    jobs: int | None,
    no_cache: bool,
) -> CheckReport:
    """The models at a revision and in the working tree, with no budget to keep."""
    from iftplan.checks.check import check_models

    found, models = _wanted(names, config, inputs)
    cache = cache_folder(found, None, no_cache)
    baseline, notes = at_revision(revision, found, models, cache, jobs)
    costs = measure_models(found, models, cache, jobs)
    return check_models(found, models, costs, baseline, notes)


def _wanted(
    names: Sequence[str], config: str | None, inputs: tuple[InputSpec, ...]
) -> tuple[Configuration, tuple[ConfiguredModel, ...]]:
    """Configured models by their names, others by their sources; each without its budget."""
    from iftplan.checks.configuration import Configuration, ConfiguredModel, DriftPolicy
    from iftplan.models.sources import parse_source

    try:
        found = configuration(config)
    except InputError:
        if config is not None or not names:
            raise
        found = Configuration(Path.cwd() / "iftplan.toml", ())
    own = {model.name for model in found.models}
    if inputs and (configured := [name for name in names or own if name in own]):
        raise InputError(
            f"--input does not apply to {', '.join(configured)}, which {found.path.name} gives inputs. Change them there."
        )
    others = [ConfiguredModel(n, parse_source(n).text, inputs=inputs) for n in names if n not in own]
    found = replace(found, models=(*found.models, *others))
    free = (
        replace(m, bounds=(), drift=DriftPolicy.REPORT, parameter_drift=None) for m in found.chosen(names)
    )
    return found, tuple(free)


def _ledger(text: str, inputs: tuple[InputSpec, ...], no_cache: bool) -> LayerCosts:
    from iftplan.plans.audit.diff import LayerCosts

    document = document_in(text)
    if document is None:
        _refuse_revision(text)
        return _spec_ledger(text, spec_of(text, inputs, no_cache=no_cache))
    match schema_of(document, text):
        case "spec":
            return _spec_ledger(text, spec_in(document, text, inputs))
        case "plan":
            plan = plan_in(document, text, inputs)
            pattern = f", attention {plan.attention} {_BY_PAIRS}" if plan.attention else ""
            return LayerCosts(
                f"{short_name(text)} ({plan.transform} {plan.model}{pattern})",
                {x.name: x.macs for x in plan.layers},
            )
        case "audit":
            from iftplan.plans.audit.document import parse_measured

            subject, layers = parse_measured(document, text)
            pattern = f", attention {_BY_PAIRS}" if "attention" in document else ""
            return LayerCosts(f"{short_name(text)} ({subject}{pattern})", layers)
        case kind:
            raise InputError(
                f"{text} is a {kind} document. diff takes models, specs, plans and audit reports."
            )


def _refuse_two_revisions(base: str, head: str) -> None:
    """Refuse two git revisions, of which neither is checked out.

    Raises:
        InputError: both are revisions, and no models; says how they are compared.
    """
    from iftplan.models.sources import parse_source

    for text in (base, head):
        if text == "-" or Path(text).exists():
            return
        try:
            parse_source(text)
        except InputError:
            continue
        return
    from iftplan.checks.revisions import is_revision

    if is_revision(base, Path.cwd()) and is_revision(head, Path.cwd()):
        raise InputError(
            f"{base} and {head} are git revisions, and a revision is compared with the working tree. Check one out, and compare it with the other: git switch {head}, then iftplan diff --base {base}."
        )


def _refuse_revision(text: str) -> None:
    """Refuse a git revision in the place of a model.

    Raises:
        InputError: it is one, and no model; says how revisions are compared.
    """
    from iftplan.models.sources import parse_source

    try:
        parse_source(text)
    except InputError as error:
        from iftplan.checks.revisions import is_revision

        if not is_revision(text, Path.cwd()):
            raise
        raise InputError(
            f"{text} is a git revision, and BASE and HEAD name models, plans or reports. To compare the configured models with how they were there: iftplan diff --base {text}."
        ) from error


def _spec_ledger(text: str, spec: ModelSpec) -> LayerCosts:
    from iftplan.plans.audit.diff import LayerCosts

    layers = {w.layer.name: w.layer.dense_macs for w in spec.layers}
    return LayerCosts(short_name(text), layers | {p.name: p.macs for p in spec.products})
