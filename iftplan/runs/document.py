"""Runs as documents: TOML read into a `RunConfig`, recipes, and the records that a run directory holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from iftplan.base.documents import Document, digest, parse_toml, read_text
from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.runs.recipes.files import recipe_files
from iftplan.runs.settings import RunConfig

T = TypeVar("T")
_FINITE = ConfigDict(allow_inf_nan=False)


def read_recipe(name: str) -> Document:
    """Settings of a bundled recipe.

    Raises:
        InputError: there is none of that name; says the nearest.
    """
    found = recipe_files()
    if name not in found:
        raise InputError(
            f"there is no recipe {name!r}; recipes are {', '.join(found)}.{did_you_mean(name, found)}"
        )
    return parse_toml(found[name].read_text(encoding="utf-8"), f"recipe {name}")


def read_toml(path: str) -> Document:
    """Settings in a TOML file.

    Raises:
        InputError: it cannot be read, or is not TOML; says where.
    """
    return parse_toml(read_text(path), path)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    """Settings with others over them, section by section."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = merge(cast("Mapping[str, Any]", below), value) if both else value
    return result


def parse_run(settings: Mapping[str, Any], where: str) -> RunConfig:
    """A run from its settings; what is not said is at its default.

    Raises:
        InputError: names the path inside the file, and the nearest key.
    """
    return _section(RunConfig, settings, where, "")


def run_object(config: RunConfig) -> Document:
    """The run as a JSON object."""
    found: Document = _plain(asdict(config))
    return found


ADDED: tuple[tuple[str, str], ...] = (
    ("data", "workers"),
    ("data", "shorter_side"),
    ("data", "random_resized_crop"),
    ("data", "eval_shorter_side"),
    ("data", "color_jitter"),
    ("data", "cutout"),
    ("data", "mixup"),
    ("data", "mean"),
    ("data", "std"),
    ("data", "separator"),
    ("method", "initial"),
    ("method", "importance"),
    ("method", "soft"),
    ("method", "margin"),
    ("method", "redistribution"),
    ("method", "smoothing"),
    ("data", "validation_fraction"),
    ("plan", "rounding"),
    ("plan", "pointwise"),
    ("plan", "input"),
    ("plan", "budget"),
    ("method", "count_from"),
    ("training", "timeout"),
    ("method", "anneal_from"),
    ("optimizer", "decay"),
    ("training", "patience"),
    ("training", "checkpoints"),
    ("training", "tensor_parallel"),
    ("training", "replicas"),
    ("training", "recompute"),
    ("recycling", "interval"),
    ("recycling", "threshold"),
    ("recycling", "end"),
    ("recycling", "measure"),
    ("start", "fresh"),
    ("start", "freeze"),
    ("start", "drop"),
    ("start", "redraw"),
    ("method", "nuclear"),
    ("adapters", "rank"),
    ("adapters", "layers"),
    ("adapters", "scale"),
)
"""Settings, by section and name, that came after runs were first written: at its default none of them counts in a digest."""


def telling_settings(config: RunConfig) -> Document:
    """Settings that tell a run from others, as a JSON object; those that were added only where they are not at their defaults."""
    found, defaults = run_object(config), run_object(RunConfig())
    for section, name in ADDED:
        if found[section][name] == defaults[section][name]:
            del found[section][name]
    if not config.distillation.teacher:
        del found["distillation"]
    for section in ("recycling", "adapters"):
        if not found[section]:
            del found[section]
    if config.growth.how == "none":
        del found["growth"]
    found["data"].pop("workers", None)
    found["training"].pop("timeout", None)
    return found


def run_digest(config: RunConfig) -> str:
    """SHA-256 of the settings that a run's numbers follow from: not of where its files lie."""
    found = telling_settings(config)
    del (
        found["plan"],
        found["data"]["path"],
        found["data"]["kind"],
        found["training"]["threads"],
        found["training"]["spectra"],
        found["start"]["checkpoint"],
    )
    if not found["start"]:
        del found["start"]
    if found["training"]["execution"] == "compact":  # the same steps, and the same checkpoints
        found["training"]["execution"] = "dense"
    found["training"]["strategy"] = "auto"  # how processes share the work, as are the next
    for name in ("checkpoints", "tensor_parallel", "replicas", "recompute"):
        found["training"].pop(name, None)
    found.get("distillation", {}).pop("teacher", None)
    found.get("recycling", {}).pop("measure", None)
    if not found.get("recycling", True):
        del found["recycling"]
    return digest(found)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _section(kind: type[T], settings: Mapping[str, Any], where: str, path: str) -> T:
    hints = get_type_hints(kind, include_extras=True)  # with the ranges of numbers
    known = {f.name: hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in settings.items():
        if key not in known:
            raise InputError(
                f"{where}: there is no setting {path}{key}; {'[' + path[:-1] + ']' if path else 'a run'} takes {', '.join(known)}.{did_you_mean(key, known)}"
            )
        values[key] = _value(known[key], value, where, f"{path}{key}")
    return kind(**values)


def _value(kind: Any, value: Any, where: str, path: str) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: {path} is {value!r}, but it must be a section, [{path}].")
        return _section(cast("type[Any]", kind), value, where, f"{path}.")
    import json

    try:
        return TypeAdapter(kind, config=_FINITE).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise InputError(f"{where}: {path} = {value!r}: {message[:1].lower()}{message[1:]}.") from error
