"""The runs of `iftplan paper --run`: one for each row and seed, trained as a sweep's are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from iftplan.base.errors import InputError
from iftplan.cli.commands.training.sweep.choices import seeds_in
from iftplan.cli.commands.training.sweep.planning import require_optuna
from iftplan.cli.output import Format, emit, say, say_next
from iftplan.cli.run_settings import RunOptions, run_of
from iftplan.runs.results.published.costs import SETTINGS
from iftplan.runs.results.published.entries import PaperEntry
from iftplan.runs.results.published.results import PublishedResult
from iftplan.runs.settings import RunConfig
from iftplan.runs.sweeps.grid import run_name
from iftplan.runs.sweeps.reproduction import reproduced_rows, row_runs
from iftplan.runs.sweeps.reproduction_tables import reproduction_document, reproduction_table

_OF_ROWS = ("plan.transform", "plan.sparsity", "plan.mask", "method.name", "seed")
"""Settings that every row has of its own."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Options by which a table's rows are trained.

    Attributes:
        full: each row's own network and recipe, in place of one small recipe.
        model: rows of this published model alone.
        recipe: of the small runs.
        data: a path, or nothing.
        seeds: with commas.
        settings: each `section.key=value`.
        epochs: of each run; None for the recipe's.
        steps: of each run; None for the recipe's.
        out: directory of the run directories.
        workers: processes.
    """

    full: bool
    model: str
    recipe: str
    data: str
    seeds: str
    settings: tuple[str, ...]
    epochs: int | None
    steps: int | None
    out: str
    workers: int


def reproduce(entry: PaperEntry, asked: Reproduction, form: Format | None, output: str | None) -> None:
    """Train the rows of a table, and print what came of them beside the published values.

    Args:
        entry: a table of results.
        asked: how.
        form: of the table.
        output: a file; None or "-" for stdout.

    Raises:
        InputError: the table has no rows that can be trained, or settings that cannot be.
    """
    from iftplan.cli.arguments import spec_of
    from iftplan.cli.commands.training.sweep.training import Training, train_runs

    if asked.full and asked.recipe:
        raise InputError("--size paper has a recipe for each network. Leave --recipe out, or --size paper.")
    for text in asked.settings:
        key = text.partition("=")[0].strip()
        if key in _OF_ROWS:
            raise InputError(f"--set {key} is what the rows of {entry.name} differ in. Leave it out.")
    require_optuna()
    models = list(dict.fromkeys(result.model for result in entry.results()))
    if asked.model and asked.model not in models:
        raise InputError(f"--rows {asked.model}: {entry.name} has {', '.join(models) or 'no models'}.")
    model = asked.model or ("" if asked.full else next(iter(models), ""))
    seeds = seeds_in(asked.seeds, 0)
    rows = row_runs(entry, lambda result: _base(entry, result, asked), seeds, model)
    runs = {run_name(run): run for row in rows for run in row.runs.values()}
    specs = {source: spec_of(source, (), widths=True) for source in {run.plan.model for run in runs.values()}}
    folder = Path(asked.out)
    folder.mkdir(parents=True, exist_ok=True)
    training = Training({"": RunConfig()}, (), seeds, folder, "", asked.workers, None, 0, retry=True)
    found = reproduced_rows(rows, train_runs(runs, specs, training))
    table = reproduction_table(entry, found)
    document = reproduction_document(entry, found)
    emit([table], lambda: document, form, output, summary=[table], records=lambda: document["rows"])
    if all(row.found is None for row in found):
        raise InputError(f"no row was trained: {found[0].outcome}")
    say(f"the runs are in {asked.out}")
    say_next(["pareto", asked.out], form, output)


def _base(entry: PaperEntry, result: PublishedResult, asked: Reproduction) -> RunConfig:
    options = RunOptions(
        data=asked.data,
        recipe=asked.recipe or entry.small_recipe,
        settings=asked.settings,
        epochs=asked.epochs,
        steps=asked.steps,
    )
    if not asked.full:
        return run_of(options)
    setting = SETTINGS.get((result.task, result.model))
    if setting is None or not setting.recipe:
        raise InputError(
            f"there is no recipe for {result.model} on {result.task}; train the rows at --size small, or of another model with --rows."
        )
    run = run_of(replace(options, recipe=setting.recipe))
    return replace(run, plan=replace(run.plan, model=setting.model))
