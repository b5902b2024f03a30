"""`iftplan check`: every configured model against its budget and its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.cli import completion
from iftplan.cli.help import OUTPUT_PANEL
from iftplan.cli.options import ConventionOption, FormatOption, OutputOption
from iftplan.cli.output import Format, emit, report_form, say, say_next
from iftplan.cli.progress import parts

if TYPE_CHECKING:
    from iftplan.checks.baseline import Baseline
    from iftplan.checks.check import Around, Costs
    from iftplan.checks.configuration import Configuration, ConfiguredModel
    from iftplan.checks.findings import CheckReport, ModelCheck
    from iftplan.report.table import Table

EXAMPLE = """
Example, with this in iftplan.toml (or under tool.iftplan in pyproject.toml):

  [models.resnet]
  source = "zoo:resnet18-cifar"
  budget.macs = "560M"
  budget.parameters = "12M"

  $ iftplan check

  iftplan.toml
  model           MACs   parameters                    of the budget   outcome
  ────────────────────────────────────────────────────────────────────────────
  resnet   555 468 800   11 220 132        99.2% of 560 000 000 MACs   passed
                                      93.5% of 12 000 000 parameters

Exit status: 0 all passed, 1 a model costs more than it may or has drifted, 2 bad input, 3 could not measure, 4 a plan
is stale; with several models the weightiest of them: 1, 2, 4, 3.
"""

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration that names the models.",
        show_default="iftplan.toml or pyproject.toml, here or in a folder above",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Number of parallel measurement processes.", show_default="automatic"),
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache-dir",
        metavar="FOLDER",
        help="Folder of stored measurements.",
        show_default=".iftplan_cache beside the configuration",
    ),
]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Measure every model anew, and store nothing.")
]


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            autocompletion=completion.configured,
            help="Models of the configuration (default: all).",
        ),
    ] = None,
    config: ConfigOption = None,
    save_baseline: Annotated[
        bool,
        typer.Option("--save-baseline", help="Store today's costs as the baseline of later checks."),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="REV",
            help="Git revision that serves as the baseline, such as main or HEAD~1.",
        ),
    ] = None,
    jobs: JobsOption = None,
    cache_dir: CacheOption = None,
    no_cache: NoCacheOption = False,
    report: Annotated[
        list[str] | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Also write a report to FILE: .md, .html, .xml (JUnit), .sarif, .json or .csv; repeat it for more.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = None,
    form: FormatOption = None,
    output: OutputOption = None,
    convention: ConventionOption = Convention.MAC,
) -> None:
    """Check a project's models against their budgets and baseline.

    Only models that changed are measured again.
    """
    if save_baseline and base is not None:
        raise InputError(
            "--save-baseline and --base cannot be combined: one stores today's costs, the other compares with a git revision. Give one of them."
        )
    from iftplan.checks import check

    for file in report or ():  # before minutes are spent on what cannot be kept
        report_form(file)
    found = configuration(config)
    _refuse_sources(found, names or ())
    models = found.chosen(names or ())
    cache = cache_folder(found, cache_dir, no_cache)
    notes: tuple[str, ...] = ()
    baseline: Baseline | None
    if base is not None:  # first, for there may be no such revision
        baseline, notes = at_revision(base, found, models, cache, jobs)
    else:
        baseline = None if save_baseline and not names else check.saved_baseline(found)
    costs = measure_models(found, models, cache, jobs)
    if save_baseline:
        baseline = check.renewed_baseline(found, models, costs, baseline)
        without = [model.name for model in models if model.name not in baseline.models]
        if baseline.models:
            say(f"written: {check.save_baseline(found, baseline)}")
        if without:
            say(
                f"{'not in the baseline' if baseline.models else 'no baseline written'}: {', '.join(without)} could not be measured"
            )
    checked = check.check_models(found, models, costs, baseline, notes)
    show_report(checked, form, output, convention, also=report or (), config=config)


def _refuse_sources(found: Configuration, names: Sequence[str]) -> None:
    """Refuse a model's source in the place of its name in the configuration.

    Raises:
        InputError: one that no model is called by; says which command takes a source.
    """
    known = [model.name for model in found.models]
    for name in names:
        if name not in known and (":" in name or name.endswith(".json")):
            raise InputError(
                f"check takes names of models in {found.path.name}, which has {', '.join(known)}. To hold {name} to {'its plan: iftplan audit ' + name if name.endswith('.json') else 'a budget: iftplan audit ' + name + ' --budget 1G'}."
            )


def show_report(
    report: CheckReport,
    form: Format | None,
    output: str | None,
    convention: Convention,
    tables: Sequence[Table] = (),
    also: Sequence[str] = (),
    config: str | None = None,
) -> None:
    """Write a report, say what is wrong, and end with its status if anything is.

    Args:
        report: what was found.
        form: the form asked for.
        output: a file, or None or "-" for stdout.
        convention: what a count of MACs is shown as.
        tables: what people read on a terminal; by default one line a model.
        also: more files, each in the form that its name says.
        config: file of the configuration, where it was named.
    """
    from iftplan.checks.findings import Status, check_document
    from iftplan.checks.page import check_page
    from iftplan.checks.tables import check_table
    from iftplan.cli.source_lines import configured_place, source_place

    summary = check_table(report, convention)
    emit(
        tables or [summary],
        lambda: check_document(report, convention),
        form,
        output,
        summary=[summary],
        page=lambda: check_page(
            report, convention, lambda m: source_place(m.source) or configured_place(report.config, m.name)
        ),
        also=also,
    )
    for model in report.models:
        if model.status is not Status.PASSED:
            say(*(f"{model.status}: {model.name}: {problem}" for problem in model.problems))
    if report.baseline.endswith(".json") and any(_only_drifted(model) for model in report.models):
        say(
            f"if the new cost is intended, accept it with iftplan check --save-baseline, and commit {report.baseline}"
        )
    say_next(_next(report, config), form, output)
    if not report.passed:
        raise typer.Exit(report.status.exit_code)


def _only_drifted(model: ModelCheck) -> bool:
    """Whether a model failed by its baseline alone."""
    from iftplan.checks.findings import Status

    return model.status is Status.FAILED and all(limit.kept for limit in model.limits)


def _next(report: CheckReport, config: str | None) -> list[str]:
    """Words of the command that shows what changed in models over budget, where git has an earlier revision."""
    from iftplan.checks.findings import Status

    over = [model.name for model in report.models if model.status is Status.FAILED]
    folder = Path(report.config).absolute()
    if not over or not any((parent / ".git").exists() for parent in folder.parents):
        return []
    base = "HEAD" if report.baseline.endswith(".json") or not report.baseline else report.baseline
    return ["diff", "--base", base, *(("--config", config) if config else ()), *over]


def configuration(given: str | None) -> Configuration:
    """The configuration that was named, or the nearest one.

    Raises:
        InputError: there is none, or it is not what it has to be.
    """
    from iftplan.checks.configuration_file import find_config, read_config

    return read_config(Path(given).resolve() if given is not None else find_config(Path.cwd()))


def cache_folder(config: Configuration, given: str | None, no_cache: bool) -> Path | None:
    """Folder in which measurements are kept; None where they are not.

    Args:
        config: whose folder has the usual place.
        given: another place.
        no_cache: whether to keep none.
    """
    from iftplan.cache.store import FOLDER

    if no_cache:
        return None
    return Path(given).resolve() if given is not None else config.folder / FOLDER


def measure_models(
    config: Configuration, models: tuple[ConfiguredModel, ...], cache: Path | None, jobs: int | None
) -> Costs:
    """Costs of the models, and of those that their ratios name.

    Args:
        config: whose folder paths are relative to.
        models: to be measured.
        cache: folder of measurements; None for none.
        jobs: parallel processes; None for automatic.
    """
    from iftplan.checks.check import measure_models, with_references
    from iftplan.checks.revisions import terminating

    wanted = with_references(config, models)
    with terminating():  # no process that measures outlives us
        return measure_models(wanted, config.folder, cache=cache, jobs=jobs, around=_measuring(cache))


def at_revision(
    revision: str,
    config: Configuration,
    models: tuple[ConfiguredModel, ...],
    cache: Path | None,
    jobs: int | None,
) -> tuple[Baseline, tuple[str, ...]]:
    """Costs of the models at a git revision, and notes on them.

    Args:
        revision: anything that git understands.
        config: as it is here.
        models: to be measured.
        cache: folder of measurements; None for none.
        jobs: parallel processes; None for automatic.
    """
    from iftplan.checks.revisions import revision_baseline

    return revision_baseline(
        revision, config, models, cache=cache, jobs=jobs, around=_measuring(cache, f" at {revision}")
    )


def _measuring(cache: Path | None, where: str = "") -> Around:
    after = "the same command measures the rest" if cache else "the same command begins again"
    return lambda count: parts(f"measuring {count} model{'s' if count > 1 else ''}{where}", count, after)
