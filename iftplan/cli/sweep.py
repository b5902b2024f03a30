"""`iftplan sweep`: many plans, and with `--train` many runs, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iftplan.cli.options import (
    AllowOption,
    FormatOption,
    InputOption,
    OutputOption,
    families_of,
    inputs_of,
    split,
)
from iftplan.cli.output import Format, emit, say, working
from iftplan.errors import InfeasibleError, InputError, MeasureError
from iftplan.plans import Scope
from iftplan.units import parse_sparsity

if TYPE_CHECKING:
    from iftplan.documents import Document
    from iftplan.form import Family
    from iftplan.report.table import Table
    from iftplan.runs import RunConfig
    from iftplan.searching import SamplerName
    from iftplan.spec import ModelSpec
    from iftplan.sweeps import Grid, Row

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
    """What chooses the trials of a search."""

    TPE = "tpe"
    NSGA2 = "nsga2"
    RANDOM = "random"


class Heads(StrEnum):
    """What attention keeps when it widens."""

    NUMBER = "number"
    SIZE = "size"


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="zoo:NAME, hf:CONFIG.json, file.py:factory, a spec …; several."
        ),
    ],
    transforms: Annotated[
        str, typer.Option("--transforms", help="wide, parallel, factorized, doped, lowrank, none, all.")
    ] = "all",
    sparsities: Annotated[
        str, typer.Option("--sparsities", help="0.5,0.75,0.9; FIRST:LAST:STEP for many.")
    ] = "0.5,0.75,0.9",
    distributions: Annotated[
        str, typer.Option("--distributions", help="How density is spread: uniform, er, erk.")
    ] = "uniform",
    masks: Annotated[
        str,
        typer.Option(
            "--structures", help="What masks may look like: unstructured, 2:8, 2:8T, block4x4, fan-in."
        ),
    ] = "",
    scope: Annotated[Scope | None, typer.Option("--scope", help="Whose MACs are held equal.")] = None,
    keep_dense: Annotated[
        str | None, typer.Option("--keep-dense", help="first, last, names of layers, or none.")
    ] = None,
    round_to: Annotated[
        int | None, typer.Option("--round-to", min=1, help="Make widths multiples of this.")
    ] = None,
    heads: Annotated[
        Heads, typer.Option("--heads", help="Keep the number or the size of attention heads.")
    ] = Heads.NUMBER,
    train: Annotated[
        bool, typer.Option("--train", help="Train every plan, or continue where that stopped.")
    ] = False,
    methods: Annotated[
        str, typer.Option("--methods", help="How masks change: dense, static, set, rigl … (--train).")
    ] = "",
    seeds: Annotated[str, typer.Option("--seeds", help="0,1,2 (--train).")] = "",
    data: Annotated[str, typer.Option("--data", help="As of iftplan train (--train).")] = "",
    recipe: Annotated[str, typer.Option("--recipe", help="Bundled settings to start from (--train).")] = "",
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
        typer.Option("--search", help="Search between the sparsities, beside as many random trials."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=2, help="Of a search.")] = 32,
    input: InputOption = None,
    allow: AllowOption = None,
    form: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Plan every combination into one table; with --train, train them all. The same command continues what stopped."""
    from dataclasses import replace

    from iftplan.runs import PlanConfig, RunConfig
    from iftplan.sweeps import Grid

    given = {
        "--methods": methods, "--seeds": seeds, "--data": data, "--recipe": recipe, "--config": config,
        "--set": settings, "--epochs": epochs, "--steps": steps, "--storage": storage,
    }  # fmt: skip
    if not train and (names := [name for name, value in given.items() if value]):
        raise InputError(f"{names[0]} is of training; add --train, or leave it out to plan alone.")
    if train and (input or allow or heads is Heads.SIZE):
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
    families, named = _families(transforms)
    widens = any(family.definition.widens for family in families.values())
    specs = _specs(models, input, allow, widens=widens, heads=heads.value, train=train)
    grid = Grid(
        tuple(specs), named, _sparsities(sparsities), tuple(_distributions(distributions)),
        tuple(split(masks)) or ("",), asked,
    )  # fmt: skip
    notes: Sequence[Table] = ()
    if train:
        require_optuna()
        from iftplan.cli.sweep_training import Training, trained

        kept = Training(
            replace(base, plan=asked), tuple(split(methods)), _seeds(seeds, base.seed),
            Path(out), storage, workers, search.value if search else None, trials, retry_failed,
        )  # fmt: skip
        rows, notes = trained(grid, specs, families, kept)
    elif search:
        rows, notes = _searched(grid, specs, families, search.value, trials)
    else:
        rows = _planned(grid, specs, families, heads.value)
    _write(rows, notes, form, output)
    _judge(rows)


def _base(
    data: str, config: str, recipe: str, settings: Sequence[str], epochs: int | None, steps: int | None
) -> RunConfig:
    from iftplan.cli.run_settings import Given, run_of

    return run_of(
        Given(data=data, config=config, recipe=recipe, settings=settings, epochs=epochs, steps=steps)
    )


def _families(text: str) -> tuple[Mapping[str, Family], tuple[str, ...]]:
    """The families by name, and all names in the order they were given in, "none" among them."""
    families: dict[str, Family] = {}
    names: list[str] = []
    for part in split(text):
        found = [] if part == "none" else families_of(part)
        families |= {family.name: family for family in found}
        names += ["none"] if part == "none" else [family.name for family in found]
    if not names:
        raise InputError("--transforms names none; write --transforms wide,parallel or all.")
    return families, tuple(dict.fromkeys(names))


def _sparsities(text: str) -> tuple[Fraction, ...]:
    """`0.5,0.75`, and `0.5:0.95:0.05`, whose last is among them where the steps meet it."""
    found: list[Fraction] = []
    for part in split(text):
        ends = part.split(":")
        if len(ends) == 1:
            found.append(parse_sparsity(part))
            continue
        if len(ends) != 3:
            raise InputError(
                f"sparsities {part!r} are no range; write FIRST:LAST:STEP, such as 0.5:0.95:0.05."
            )
        first, last, step = map(parse_sparsity, ends)
        if not step or last < first:
            raise InputError(
                f"sparsities {part!r} hold nothing; the step is above 0, and LAST not below FIRST."
            )
        found += [first + i * step for i in range(int((last - first) / step) + 1)]
    if not found:
        raise InputError("--sparsities names none; write --sparsities 0.5,0.75,0.9.")
    return tuple(dict.fromkeys(found))


def _distributions(text: str) -> list[str]:
    from iftplan.distributions import Distribution

    known = [d.value for d in Distribution]
    if not (found := split(text)) or (unknown := [name for name in found if name not in known]):
        what = repr(unknown[0]) if found else "nothing"
        raise InputError(f"--distributions names {what}; distributions are {', '.join(known)}.")
    return found


def _seeds(text: str, default: int) -> tuple[int, ...]:
    parts = split(text) or [str(default)]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--seeds {text!r} are no whole numbers; write --seeds 0,1,2.")
    return tuple(dict.fromkeys(map(int, parts)))


def _specs(
    models: Sequence[str],
    input: list[str] | None,
    allow: list[str] | None,
    *,
    widens: bool,
    heads: str,
    train: bool,
) -> Mapping[str, ModelSpec]:
    """Each model, read once, under the name that it has in the table."""
    from iftplan.cli.subjects import document_in, spec_of

    if train and (documents := [m for m in models if document_in(m) is not None]):
        raise InputError(
            f"{documents[0]} is a document, and there is nothing in it to train; name the model that it was made of."
        )
    return {
        model: spec_of(
            model, inputs_of(input), widths=widens, heads="size" if heads == "size" else "number", allow=allow
        )
        for model in dict.fromkeys(models)
    }


def _planned(
    grid: Grid, specs: Mapping[str, ModelSpec], families: Mapping[str, Family], heads: str
) -> list[Row]:
    from iftplan.sweeps import planned_rows

    with working(f"planning {len(grid)} points"):
        return list(planned_rows(specs, grid.plans(), families, heads=heads))


def _searched(
    grid: Grid,
    specs: Mapping[str, ModelSpec],
    families: Mapping[str, Family],
    sampler: SamplerName,
    trials: int,
) -> tuple[list[Row], Sequence[Table]]:
    """What a search over plans found, beside as many random trials."""
    require_optuna()
    from iftplan.report.sweeps import search_table
    from iftplan.searching import planned_objectives, planned_search, shares, space_of

    space = space_of(grid)
    found: dict[str, list[Row]] = {}
    with working(f"searching with {trials} trials"):
        for name in dict.fromkeys((sampler, "random")):
            found[name] = planned_search(space, name, trials, specs, families)
    points = {name: [p for row in rows if (p := planned_objectives(row))] for name, rows in found.items()}
    axes = "of bits to name a mask against forward MACs; 1 would be the best of both at once"
    both = dict.fromkeys(row for rows in found.values() for row in rows)  # both may choose the same plan
    return list(both), [search_table(shares(points), trials, axes)]


def require_optuna() -> None:
    """Say which extra to install where Optuna is missing.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError(
            "searching, and training many runs, need Optuna, which is not installed; install it with: pip install 'iftplan[sweep]'."
        ) from error


def _write(rows: Sequence[Row], notes: Sequence[Table], form: Format | None, output: str | None) -> None:
    from iftplan.report.sweeps import sweep_table, whole_table

    suffix = Path(output).suffix if output else ""
    if suffix == ".parquet" and output:
        from iftplan.sweeptable import frame, write_parquet

        write_parquet(frame(rows), output)
        say(f"written: {output}")
        return
    whole = form is Format.CSV or (form is None and suffix == ".csv")
    tables = [whole_table(rows)] if whole else [sweep_table(rows), *notes]
    emit(tables, lambda: _document(rows), form, output, summary=notes)


def _document(rows: Sequence[Row]) -> Document:
    from dataclasses import asdict

    from iftplan.documents import sealed

    return sealed({"schema": "iftplan.sweep/1", "convention": "mac", "rows": [asdict(row) for row in rows]})


def _judge(rows: Sequence[Row]) -> None:
    """Not one point that could be is an error; a run without an end is neither a pass nor a failure."""
    from iftplan.sweeps import PLANNED, TRAINED, UNFINISHED

    outcomes = [row.outcome for row in rows]
    if left := outcomes.count(UNFINISHED):
        raise MeasureError(f"{left} of {len(rows)} runs are not finished; the same command continues them.")
    if not {PLANNED, TRAINED} & set(outcomes):
        raise InfeasibleError(f"none of the {len(rows)} points can be; the first: {outcomes[0]}")
