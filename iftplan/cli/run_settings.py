"""From `iftplan train`'s options to the settings of a run: recipe, then file, then options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iftplan.base.documents import Document, loads, parse_toml, read_text
from iftplan.base.errors import InputError, StaleError
from iftplan.runs.document import merge, parse_run, read_recipe, read_toml, run_digest, run_object
from iftplan.runs.records import parse_record
from iftplan.runs.reference import REFERENCE
from iftplan.runs.settings import RunConfig

DEFAULT = "digits"
_PLACES = (
    ("plan", "file"),
    ("data", "path"),
    ("data", "kind"),
    ("data", "workers"),
    ("training", "threads"),
    ("start", "checkpoint"),
    ("distillation", "teacher"),
)
"""Settings that may change from start to resume: no number follows from them."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run that stood on the command line.

    Attributes:
        plan: a plan file, or nothing.
        data: a path, or nothing.
        method: a method's name, or nothing.
        config: a TOML file, or nothing.
        recipe: a recipe's name, or nothing.
        settings: `--set`, each `section.key=value`.
        seed: `--seed`.
        epochs: `--epochs`.
        steps: `--steps`.
        start: `--from`, a checkpoint or a run's directory, or nothing.
        as_reference: whether `--as reference` was given.
    """

    plan: str = ""
    data: str = ""
    method: str = ""
    config: str = ""
    recipe: str = ""
    settings: Sequence[str] = ()
    seed: int | None = None
    epochs: int | None = None
    steps: int | None = None
    start: str = ""
    as_reference: bool = False


def run_of(given: RunOptions) -> RunConfig:
    """The run that was asked for.

    Raises:
        InputError: a recipe, a file or a setting that cannot be.
    """
    recipe = given.recipe or ("" if given.config else DEFAULT)
    settings = read_recipe(recipe) if recipe else {}
    if given.config:
        settings = merge(settings, read_toml(given.config))
    return parse_run(merge(settings, _options(given, settings)), given.config or "the settings")


def resumed_run(given: RunOptions, directory: Path) -> RunConfig:
    """The run in a directory; options may say again what it was started with, or where its data are now.

    Raises:
        InputError: there is no run, or an option says otherwise.
        StaleError: another plan was given.
    """
    path = directory / "run.json"
    if not path.is_file():
        raise InputError(f"there is no run in {directory} to resume. Start one without --resume.")
    record = parse_record(loads(read_text(str(path)), str(path)), str(path))
    for key in ("config", "plan_digest"):
        if key not in record:
            raise InputError(
                f"{path} has no key {key!r}, so iftplan train did not write it. Start a new run with another --out."
            )
    if "soup" in record:
        raise InputError(
            f"{directory} holds an average of runs, which has no training to continue. Start from it with --from {directory}."
        )
    recorded = parse_run(record["config"], str(path))
    settings = merge(read_recipe(given.recipe), {}) if given.recipe else {}
    if given.config:
        settings = merge(settings, read_toml(given.config))
    options = merge(settings, _options(given, record["config"]))
    asked = parse_run(merge(record["config"], options), given.config or "the settings")
    plans = (replace(run.plan, file="") for run in (asked, recorded))
    if run_digest(asked) != run_digest(recorded) or len(set(plans)) > 1:
        raise InputError(
            f"{_difference(recorded, asked)}. Resume it with the settings that it was started with, or start another run with --out."
        )
    if given.plan and loads(read_text(given.plan), given.plan).get("digest") != record["plan_digest"]:
        raise StaleError(
            f"the run in {directory} was started with another plan than {given.plan} (digest {record['plan_digest'][:12]}…). Resume without a plan, or start a new run with another --out."
        )
    return asked


def _options(given: RunOptions, settings: Mapping[str, Any]) -> Document:
    length = {"epochs": given.epochs, "steps": 0 if given.epochs and not given.steps else given.steps}
    options = _said(
        {
            "seed": given.seed,
            "plan": {"file": given.plan or _plan_beside(given.start, settings) or None},
            "data": {"path": given.data or None, "kind": "auto" if given.data else None},
            "method": {"name": given.method or ("static" if given.start else None)},  # masks as they come
            "start": {"checkpoint": given.start or None},
            "training": length,
        }
    )
    if given.as_reference:
        options = merge(REFERENCE, options)
    for text in given.settings:
        options = merge(options, _setting(text))
    return options


def _plan_beside(start: str, settings: Mapping[str, Any]) -> str:
    """The plan of the run that a checkpoint is from; none where the settings count the model with an input of their own."""
    if settings.get("plan", {}).get("input"):
        return ""
    path = Path(start)
    beside = (path if path.is_dir() else path.parent) / "plan.json"
    return str(beside) if start and beside.is_file() else ""


def _said(options: dict[str, Any]) -> Document:
    """What was given, without what was not."""
    kept = {k: _said(v) if isinstance(v, dict) else v for k, v in options.items()}
    return {k: v for k, v in kept.items() if v is not None and v != {}}


def _setting(text: str) -> Document:
    """`optimizer.lr=0.05` as a table; a value that is no TOML is text."""
    path, equals, value = text.partition("=")
    if not equals or not all(part.isidentifier() for part in path.strip().split(".")):
        raise InputError(f"--set {text!r} is not KEY=VALUE. Write it as in --set optimizer.lr=0.05.")
    try:
        tomllib.loads(f"x = {value}")
    except (ValueError, RecursionError):
        import json

        value = json.dumps(value)  # a TOML string is escaped as JSON's
    return parse_toml(f"{path.strip()} = {value}", f"--set {text}")


def _difference(recorded: RunConfig, asked: RunConfig) -> str:
    """The first setting that differs."""
    for section, values in run_object(recorded).items():
        others = run_object(asked)[section]
        if not isinstance(values, dict):
            values, others = {"": values}, {"": others}
        for key, value in values.items():
            if others[key] != value and (section, key) not in _PLACES:
                name = f"{section}.{key}".rstrip(".")
                return f"the run was started with {name} = {value!r}, and {others[key]!r} is asked for"
    return "the run was started with other settings"
