"""`iftplan sweep`: many plans, and with `--train` many runs, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.base.errors import InputError
from iftplan.cli import completion
from iftplan.cli.commands.sweep.choices import (
    distributions_in,
    families_named,
    seeds_in,
    sparsities_in,
    specs_of,
)
from iftplan.cli.commands.sweep.output import require_a_point, write
from iftplan.cli.commands.sweep.planning import plan_points, require_optuna, search_plans
from iftplan.cli.options import (
    DISTRIBUTION_HELP,
    SCOPE_HELP,
    STRUCTURES_HELP,
    AllowOption,
    FormatOption,
    InputOption,
    NoCacheOption,
    OutputOption,
    split,
)
from iftplan.models.spec import Heads
from iftplan.plans.plan import Scope

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


class Sampler(StrEnum):
    """Sampler of a search, which chooses the trials."""

    TPE = "tpe"
    NSGA2 = "nsga2"
    RANDOM = "random"


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            autocompletion=completion.models,
            help="zoo:NAME, hf:CONFIG.json, file.py:factory, a spec …; several.",
        ),
    ],
    transforms: Annotated[
        str,
        typer.Option(
            "--transforms",
            autocompletion=completion.transforms,
            help="wide, parallel, factorized, doped, lowrank, none, all.",
        ),
    ] = "all",
    sparsities: Annotated[
        str, typer.Option("--sparsities", help="0.5,0.75,0.9; FIRST:LAST:STEP for many.")
    ] = "0.5,0.75,0.9",
    distributions: Annotated[str, typer.Option("--distributions", help=DISTRIBUTION_HELP)] = "uniform",
    masks: Annotated[
        str,
        typer.Option("--structures", help=f"{STRUCTURES_HELP}."),
    ] = "",
    scope: Annotated[Scope | None, typer.Option("--scope", help=SCOPE_HELP)] = None,
    keep_dense: Annotated[
        str | None, typer.Option("--keep-dense", help="first, last, names of layers, or none.")
    ] = None,
    round_to: Annotated[
        int | None, typer.Option("--round-to", min=1, help="Make widths multiples of this.")
    ] = None,
    heads: Annotated[
        Heads, typer.Option("--heads", help="Keep the number or the size of attention heads.")
    ] = "number",
    train: Annotated[
        bool, typer.Option("--train", help="Train every plan, or continue where that stopped.")
    ] = False,
    methods: Annotated[
        str, typer.Option("--methods", help="How masks change: dense, static, set, rigl … (--train).")
    ] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="0,1,2 (--train).")] = "",
    data: Annotated[str, typer.Option("--data", help="As of iftplan train (--train).")] = "",
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", autocompletion=completion.recipes, help="Bundled settings to start from (--train)."
        ),
    ] = "",
    config: Annotated[
        str, typer.Option("--config", help="Settings of the runs, a TOML file (--train).")
    ] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One setting; may be repeated (--train).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the data (--train).")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps, instead of epochs (--train).")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Where run directories are (--train).")] = "sweeps",
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that train on this machine (--train).")
    ] = 1,
    storage: Annotated[
        str,
        typer.Option(
            "--storage", help="The record: a file, or the URL of a database; by default in --out (--train)."
        ),
    ] = "",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before (--train).")
    ] = False,
    search: Annotated[
        Sampler | None,
        typer.Option(
            "--search",
            help="Search between the sparsities, beside as many random trials: tpe or nsga2 (samplers of Optuna), or random.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=2, help="Of a search.")] = 32,
    input: InputOption = None,
    allow: AllowOption = None,
    no_cache: NoCacheOption = False,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Plan every combination into one table; with --train, train them all. The same command continues what stopped."""
    from dataclasses import replace

    from iftplan.runs.settings import PlanConfig, RunConfig
    from iftplan.runs.sweeps.grid import Grid

    given = {
        "--methods": methods, "--seeds": seeds, "--data": data, "--recipe": recipe, "--config": config,
        "--set": settings, "--epochs": epochs, "--steps": steps, "--storage": storage,
    }  # fmt: skip
    if not train and (names := [name for name, value in given.items() if value]):
        raise InputError(f"{names[0]} is of training; add --train, or leave it out to plan alone.")
    if train and (input or allow or heads == "size"):
        raise InputError(
            "--input, --allow and --heads are of plans alone: iftplan train counts a model with its own inputs and heads. Plan with them, and train the plan."
        )
    base = (
        _base(data, config, recipe, settings or (), epochs, steps) if train else RunConfig(plan=PlanConfig())
    )
    common = {
        "scope": scope and scope.value,
        "keep_dense": None if keep_dense is None else tuple(split(keep_dense)),
        "round_to": round_to,
    }
    asked = replace(base.plan, **{k: v for k, v in common.items() if v is not None})  # type: ignore[arg-type]
    families, named = families_named(transforms)
    widens = any(family.definition.widens for family in families.values())
    specs = specs_of(models, input, allow, widens=widens, heads=heads, train=train, no_cache=no_cache)
    grid = Grid(
        tuple(specs), named, sparsities_in(sparsities), tuple(distributions_in(distributions)),
        tuple(split(masks)) or ("",), asked,
    )  # fmt: skip
    notes: Sequence[Table] = ()
    if train:
        require_optuna()
        from iftplan.cli.commands.sweep.training import Training, train_points

        kept = Training(
            replace(base, plan=asked), tuple(split(methods)), seeds_in(seeds, base.seed),
            Path(out), storage, workers, search.value if search else None, trials, retry_failed,
        )  # fmt: skip
        rows, notes = train_points(grid, specs, families, kept)
    elif search:
        rows, notes = search_plans(grid, specs, families, search.value, trials)
    else:
        rows = plan_points(grid, specs, families, heads)
    write(rows, notes, form, output)
    require_a_point(rows)


def _base(
    data: str, config: str, recipe: str, settings: Sequence[str], epochs: int | None, steps: int | None
) -> RunConfig:
    from iftplan.cli.run_settings import RunOptions, run_of

    return run_of(
        RunOptions(data=data, config=config, recipe=recipe, settings=settings, epochs=epochs, steps=steps)
    )
