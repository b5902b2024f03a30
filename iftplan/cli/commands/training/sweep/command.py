"""`iftplan sweep`: many plans, and with `--train` many runs, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.cli import completion
from iftplan.cli.commands.training.sweep.choices import (
    distributions_in,
    families_named,
    refuse_chosen,
    seeds_in,
    sparsities_in,
    specs_of,
    variants_in,
)
from iftplan.cli.commands.training.sweep.output import require_a_point, write
from iftplan.cli.commands.training.sweep.planning import plan_points, require_optuna, search_plans
from iftplan.cli.options import (
    DISTRIBUTION_HELP,
    HEADS_HELP,
    KEEP_DENSE_HELP,
    MODEL_HELP,
    ROUND_TO_HELP,
    SCOPE_HELP,
    SCOPES,
    STRUCTURES_HELP,
    AllowOption,
    BudgetOption,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    split,
)
from iftplan.cli.output import say_next
from iftplan.cli.process import same_command
from iftplan.models.spec import Heads
from iftplan.plans.plan import parse_scope, scope_text

if TYPE_CHECKING:
    from iftplan.report.table import Table
    from iftplan.runs.settings import RunConfig

EXAMPLE = """
Example:

  $ iftplan sweep zoo:digits-cnn --transforms wide,none --sparsities 0.5,0.75

  model zoo:digits-cnn, distribution uniform, structure unstructured, scope layers
  transform   sparsity      MACs      ratio   maskable weights   bits to name a mask   outcome
  ────────────────────────────────────────────────────────────────────────────────────────────
  wide             0.5   451 900   0.999991             28 566             2.852e+04   planned
  wide            0.75   451 904   1.000000             55 296             4.437e+04   planned
  none             0.5   230 720   0.510551             13 824             1.381e+04   planned
  none            0.75   120 128   0.265826             13 824              1.12e+04   planned
"""

_RUNS, _TRIALS = "sweeps", 32
"""Where runs go, and how many trials a search has, unless asked otherwise."""


class Sampler(StrEnum):
    """Sampler of a search, which chooses the trials."""

    TPE = "tpe"
    NSGA2 = "nsga2"
    RANDOM = "random"


class Scheduler(StrEnum):
    """Scheduler that starts the workers of a training sweep as jobs."""

    SLURM = "slurm"
    LOCAL = "local"


TRAINING_PANEL = "Training (with --train)"
SEARCH_PANEL = "Search"


def command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", autocompletion=completion.models, help=MODEL_HELP),
    ],
    transforms: Annotated[
        str,
        typer.Option(
            "--transforms",
            metavar="FAMILIES",
            autocompletion=completion.transforms,
            help="Families, with commas: wide, parallel, factorized, doped, lowrank, monarch, btt, kronecker, butterfly or all (those of Sparse-IFT); none for plain sparsity.",
        ),
    ] = "all",
    sparsities: Annotated[
        str,
        typer.Option(
            "--sparsities", metavar="LIST", help="Sparsities, with commas, or FIRST:LAST:STEP for a range."
        ),
    ] = "0.5,0.75,0.9",
    distributions: Annotated[
        str,
        typer.Option(
            "--distributions",
            metavar="LIST",
            autocompletion=completion.distributions,
            show_default="uniform",
            help=f"{DISTRIBUTION_HELP.rstrip('.')}; several with commas.",
        ),
    ] = "",
    masks: Annotated[
        str,
        typer.Option(
            "--structures",
            metavar="LIST",
            autocompletion=completion.structures,
            help=f"Patterns of the masks, with commas: {STRUCTURES_HELP}",
            show_default="unstructured",
        ),
    ] = "",
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            metavar=SCOPES,
            autocompletion=completion.scopes,
            help=SCOPE_HELP,
            show_default="layers",
        ),
    ] = None,
    budget: BudgetOption = None,
    keep_dense: Annotated[
        str | None,
        typer.Option(
            "--keep-dense",
            metavar="LAYERS",
            autocompletion=completion.layers,
            help=KEEP_DENSE_HELP,
            show_default="first,last",
        ),
    ] = None,
    round_to: Annotated[
        int | None, typer.Option("--round-to", min=1, help=ROUND_TO_HELP, show_default="1")
    ] = None,
    heads: Annotated[Heads, typer.Option("--heads", help=HEADS_HELP)] = "number",
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="Train every plan; the same command continues where it stopped.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = False,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="LIST",
            autocompletion=completion.methods,
            help="Training methods, with commas: dense, static, set, rigl … (all: iftplan train --help).",
            show_default="that of the recipe",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = "",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="LIST",
            help="Random seeds, with commas; each is a run of its own.",
            show_default="0",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Training data, as in iftplan train.",
            show_default="that of the recipe",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = "",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            autocompletion=completion.recipes,
            help="Bundled settings, which --config and options change.",
            show_default="digits, without --config",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = "",
    config: Annotated[
        str,
        typer.Option(
            "--config", metavar="FILE", help="Settings of the runs, as TOML.", rich_help_panel=TRAINING_PANEL
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One setting, such as optimizer.lr=0.05; repeat it for more.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="KEY=LIST",
            help="Values of one setting, such as optimizer.lr=0.1,0.05; each is a run of its own. Repeat it for more settings.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            help="Length of each run in passes over the data.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Length of each run in optimizer steps, instead of epochs.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR|URL",
            help="Directory that holds the run directories, or a URL such as s3://bucket/sweep (fsspec), with --storage URL.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = _RUNS,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            help="Number of parallel training processes on this machine, or of jobs with --submit.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = 1,
    submit: Annotated[
        Scheduler | None,
        typer.Option(
            "--submit",
            help="Start the workers as jobs through submitit: slurm, or local to try it on this machine.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    job: Annotated[
        list[str] | None,
        typer.Option(
            "--job",
            metavar="KEY=VALUE",
            help="One setting of each job, such as slurm_partition=gpu or timeout_min=600; repeat it for more.",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            "--storage",
            metavar="FILE|URL",
            help="Record of finished runs: a file, or the URL of a database that several machines share.",
            show_default="journal.log in --out",
            rich_help_panel=TRAINING_PANEL,
        ),
    ] = "",
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Train failed runs again.", rich_help_panel=TRAINING_PANEL),
    ] = False,
    search: Annotated[
        Sampler | None,
        typer.Option(
            "--search",
            help="Search the range instead of trying every combination: tpe or nsga2 (samplers of Optuna), or random; as many random trials are made for comparison.",
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=2,
            help="Number of trials of a search.",
            show_default=str(_TRIALS),
            rich_help_panel=SEARCH_PANEL,
        ),
    ] = None,
    input: InputOption = None,
    allow: AllowOption = None,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Plan, and optionally train, many combinations into one table.

    The same command continues a sweep that was stopped.
    """
    from dataclasses import replace

    from iftplan.families.transforms.experts import is_mixture
    from iftplan.runs.settings import PlanConfig, RunConfig
    from iftplan.runs.sweeps.grid import Grid

    given = {
        "--methods": methods, "--seeds": seeds, "--data": data, "--recipe": recipe, "--config": config,
        "--set": settings, "--vary": vary, "--epochs": epochs, "--steps": steps, "--storage": storage,
        "--submit": submit, "--job": job, "--retry-failed": retry_failed, "--workers": workers > 1,
        "--out": out != _RUNS,
    }  # fmt: skip
    if not train and (names := [name for name, value in given.items() if value]):
        raise InputError(f"{names[0]} needs --train. Add it, or leave {names[0]} out.")
    if train and (input or allow or heads == "size"):
        raise InputError(
            "--train cannot be combined with --input, --allow or --heads size. Make a plan with them (iftplan plan), and train it with iftplan train."
        )
    if job and not submit:
        raise InputError("--job needs --submit. Add --submit slurm, or leave --job out.")
    if trials is not None and not search:
        raise InputError("--trials is for a search. Add --search tpe, or leave --trials out.")
    if search and retry_failed:
        raise InputError(
            "--retry-failed is for a grid, and a search goes on without what failed. Leave it out."
        )
    if search and train and len(seeds_in(seeds, 0)) > 1:
        raise InputError(
            f"--search trains every trial with one seed, and --seeds gives {seeds}. Give one, and train what was found with others afterwards."
        )
    if search and vary:
        raise InputError("--vary is for a grid, and --search for a search. Leave one of them out.")
    refuse_chosen(settings or ())
    variants = (
        {
            label: _base(data, config, recipe, [*(settings or ()), *more], epochs, steps)
            for label, more in variants_in(vary or ()).items()
        }
        if train
        else {"": RunConfig(plan=PlanConfig())}
    )
    base = next(iter(variants.values()))
    common = {
        "scope": scope_text(*parse_scope(scope)) if scope else None,
        "budget": budget,
        "keep_dense": None if keep_dense is None else tuple(split(keep_dense)),
        "round_to": round_to,
    }
    asked = replace(base.plan, **{k: v for k, v in common.items() if v is not None})  # type: ignore[arg-type]
    families, named = families_named(transforms)
    if asked.budget and "none" in named and len(sparsities_in(sparsities)) > 1:
        raise InputError(
            "--budget alone says how many weights plain sparsity keeps, so --transforms none has one point. Give one value in --sparsities, or leave none out."
        )
    widens = any(family.definition.widens for family in families.values()) or any(map(is_mixture, named))
    input = input or ([asked.input] if asked.input else None)
    specs = specs_of(models, input, allow, widens=widens, heads=heads, train=train, no_cache=no_cache)
    grid = Grid(
        tuple(specs), named, sparsities_in(sparsities), tuple(distributions_in(distributions or asked.distribution)),
        tuple(split(masks)) or (asked.mask,), asked,
    )  # fmt: skip
    notes: Sequence[Table] = ()
    if train:
        require_optuna()
        from iftplan.cli.commands.training.sweep.jobs import job_settings
        from iftplan.cli.commands.training.sweep.training import Training, train_points

        kept = Training(
            {label: replace(run, plan=asked) for label, run in variants.items()}, tuple(split(methods)), seeds_in(seeds, base.seed),
            Path(out), storage, workers, search.value if search else None, trials or _TRIALS, retry_failed,
            out if "://" in out else "", submit.value if submit else "", job_settings(job or ()),
        )  # fmt: skip
        rows, notes = train_points(grid, specs, families, kept)
    elif search:
        rows, notes = search_plans(grid, specs, families, search.value, trials or _TRIALS)
    else:
        rows = plan_points(grid, specs, families, heads)
    write(rows, notes, form, output)
    require_a_point(rows)
    if "://" not in out:
        say_next(_next(output, out if train else ""), form, output)


def _next(output: str | None, runs: str) -> list[str]:
    """Words of the command that draws the sweep: its runs, or its plans in the table that was written."""
    if runs:
        return ["pareto", runs]
    if output in (None, "-"):
        return same_command("-o", "sweep.csv")
    return ["pareto", output, "--y", "log2_masks"] if Path(output).suffix in (".csv", ".parquet") else []


def _base(
    data: str, config: str, recipe: str, settings: Sequence[str], epochs: int | None, steps: int | None
) -> RunConfig:
    from iftplan.cli.run_settings import RunOptions, run_of

    return run_of(
        RunOptions(data=data, config=config, recipe=recipe, settings=settings, epochs=epochs, steps=steps)
    )
