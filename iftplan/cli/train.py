"""`iftplan train`: execute a plan, and write a run directory."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iftplan.cli.output import say
from iftplan.errors import InputError

if TYPE_CHECKING:
    from iftplan.documents import Document
    from iftplan.plans import Plan
    from iftplan.runs import RunConfig

EXAMPLE = """
Example:

  $ iftplan train --method rigl --epochs 1 --out runs/first
"""


class Method(StrEnum):
    """How masks change."""

    DENSE = "dense"
    STATIC = "static"
    SET = "set"
    RIGL = "rigl"
    GRADUAL = "gradual"
    SNIP = "snip"


def command(
    plan: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="A plan; without one, what the recipe plans.")
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="digits, a directory of images or CIFAR batches, a .txt file, or a .bin or .npy of tokens.",
        ),
    ] = "",
    method: Annotated[
        Method | None, typer.Option("--method", help="How masks change; dense is the control.")
    ] = None,
    config: Annotated[str, typer.Option("--config", help="Settings of the run, a TOML file.")] = "",
    recipe: Annotated[str, typer.Option("--recipe", help="Bundled settings to start from.")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="One setting, such as optimizer.lr=0.05; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of everything that is drawn.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps, instead of epochs.")] = None,
    out: Annotated[str, typer.Option("--out", help="The run directory.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run and what it costs; write nothing.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", help="What builds the plan's model, where that is Python of your own.")
    ] = "",
    trust: Annotated[bool, typer.Option("--trust", help="Run the Python that the plan names.")] = False,
) -> None:
    """Train a plan; alone, sparse digits in under a minute. `--resume` continues to the same last bit."""
    from iftplan.cli.subjects import require_torch
    from iftplan.runfile import parse_run

    require_torch("training")
    if resume:
        given = _recorded(out)
    else:
        given = _given(plan, data, method, config, recipe, settings or [], seed, epochs, steps)
    run = parse_run(given, config or "the settings")
    directory = Path(out or f"runs/{_title(run)}")
    made, document = _plan_of(run, directory if resume else None)
    source = _source(made, model, trust=trust)
    if dry_run:
        _describe(run, made, directory)
        return
    if not resume:
        _claim(directory)
    _train(run, made, document, directory, source, resume=resume)


def _given(
    plan: str,
    data: str,
    method: Method | None,
    config: str,
    recipe: str,
    settings: list[str],
    seed: int | None,
    epochs: int | None,
    steps: int | None,
) -> Document:
    """Recipe, then file, then options, each over what was before it."""
    from iftplan.runfile import merged, parse_toml, read_recipe, read_toml

    given = read_recipe(recipe or "digits") if recipe or not config else {}
    if config:
        given = merged(given, read_toml(config))
    length = {"epochs": epochs, "steps": 0 if epochs and not steps else steps}
    options = {
        "seed": seed,
        "plan": {"file": plan or None},
        "data": {"path": data or None, "kind": "auto" if data else None},
        "method": {"name": method.value if method else None},
        "training": length,
    }
    given = merged(given, _said(options))
    for text in settings:
        path, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r} sets nothing; write --set optimizer.lr=0.05.")
        literal = value if _is_toml(value) else f'"{value}"'
        given = merged(given, parse_toml(f"{path.strip()} = {literal}", f"--set {text}"))
    return given


def _said(options: dict[str, Any]) -> Document:
    """What was given, without what was not."""
    kept = {k: _said(v) if isinstance(v, dict) else v for k, v in options.items()}
    return {k: v for k, v in kept.items() if v is not None and v != {}}


def _is_toml(value: str) -> bool:
    import tomllib

    try:
        tomllib.loads(f"x = {value}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def _title(run: RunConfig) -> str:
    name = Path(run.plan.file).stem if run.plan.file else run.plan.model.rpartition(":")[2]
    return f"{Path(name).stem}-{run.method.name}-seed{run.seed}"


def _recorded(out: str) -> Document:
    """The settings of the run that is to be continued."""
    from iftplan.documents import check, loads, read_text

    path = Path(out or "") / "run.json"
    if not out or not path.is_file():
        raise InputError(
            f"--resume continues the run in --out DIR, and {out or 'no directory'} holds none; start it without --resume."
        )
    document = loads(read_text(str(path)), str(path))
    check(document, "iftplan.run/1", str(path))
    settings: Document = document["config"]
    return settings


def _claim(directory: Path) -> None:
    if any((directory / name).exists() for name in ("run.json", "metrics.csv", "result.json")):
        raise InputError(
            f"{directory} holds a run already; continue it with: iftplan train --resume --out {directory}, or name another directory with --out."
        )


def _plan_of(run: RunConfig, directory: Path | None) -> tuple[Plan, Document]:
    """The plan, read or made; a resumed run's own."""
    from iftplan.cli.subjects import document_in, plan_in
    from iftplan.planfile import plan_document

    if directory is not None:
        return _resumed_plan(directory)
    if run.plan.file:
        document = document_in(run.plan.file)
        if document is None:
            raise InputError(
                f"{run.plan.file!r} is no plan; make one with iftplan plan MODEL -o plan.json, or say plan.model in a --config."
            )
        return plan_in(document, run.plan.file), document
    made = _made(run)
    return made, plan_document(made)


def _resumed_plan(directory: Path) -> tuple[Plan, Document]:
    from iftplan.cli.subjects import plan_in
    from iftplan.documents import loads, read_text
    from iftplan.errors import StaleError

    path = directory / "plan.json"
    document = loads(read_text(str(path)), str(path))
    record = loads(read_text(str(directory / "run.json")), str(directory / "run.json"))
    made = plan_in(document, str(path))
    if document["digest"] != record["plan_digest"]:
        raise StaleError(
            f"{path} is another plan (digest {document['digest'][:12]}…) than the run was started with ({record['plan_digest'][:12]}…); put that plan back, or start anew in another directory."
        )
    return made, document


def _made(run: RunConfig) -> Plan:
    from iftplan import api
    from iftplan.cli.output import working
    from iftplan.families import family_named
    from iftplan.nn.trace import read_model

    asked = run.plan
    family = None if asked.transform == "none" else family_named(asked.transform)
    widens = family is not None and family.definition.widens
    with working(f"planning {asked.model}"):
        spec = read_model(asked.model, None, widths=widens)
        return api.plan(
            spec,
            family,
            asked.sparsity,
            scope=asked.scope,
            distribution=asked.distribution,
            keep_dense=tuple(x for x in asked.keep_dense if x != "none"),
            round_to=asked.round_to,
            mask=asked.mask or None,
        )


def _source(plan: Plan, model: str, *, trust: bool) -> str:
    """What builds the dense model; it must be the one that was planned for."""
    from iftplan.cli.subjects import build_for

    build_for(plan, model or None, trust=trust)
    return model or plan.model


def _describe(run: RunConfig, plan: Plan, directory: Path) -> None:
    from iftplan.cli.output import Format, emit
    from iftplan.report.training import run_table

    emit([run_table(run, plan, str(directory))], dict, Format.TABLE, None)


def _train(
    run: RunConfig, plan: Plan, document: Document, directory: Path, source: str, *, resume: bool
) -> None:
    from time import monotonic

    from iftplan.cli.progress import watching
    from iftplan.documents import dumps, write_text
    from iftplan.nn.training.start import record_start, result, start

    began = monotonic()
    loop = start(run, plan, document, directory, source=source, say=say)
    if loop.fabric.is_global_zero:
        directory.mkdir(parents=True, exist_ok=True)
    loop.fabric.barrier()
    if resume:
        loop.resume(say)
    elif loop.fabric.is_global_zero:
        record_start(loop, document)
        loop.metrics.write()
    with watching(loop.length.steps, loop.task.metric, quiet=not loop.fabric.is_global_zero) as watch:
        loop.run(watch)
    if loop.fabric.is_global_zero:
        found = result(loop, plan)
        write_text(dumps(found), str(directory / "result.json"))
        timing = {"schema": "iftplan.timing/1", "wall_seconds": monotonic() - began}
        write_text(dumps(timing), str(directory / "timing.json"))
        _report(found, directory)


def _report(found: Document, directory: Path) -> None:
    from iftplan.cli.output import Format, emit
    from iftplan.report.training import result_table

    emit([result_table(found)], dict, Format.TABLE, None)
    say(f"written: {directory}/result.json, metrics.csv, run.json, plan.json and checkpoints")
