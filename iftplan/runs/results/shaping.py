"""Which settings of a run shape its model or its training: what runs must agree in to be seeds of each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from iftplan.runs.settings import RunConfig

Settings = tuple[tuple[str, str], ...]
"""Dotted names and values, sorted by name."""

_ELSEWHERE = (
    "seed", "method.name", "data.kind",
    *(f"plan.{key}" for key in ("model", "transform", "sparsity", "scope", "distribution", "mask", "file", "nonlinear")),
)  # fmt: skip
"""What an observation says itself."""

_OF_THE_MACHINE = (
    "data.workers", "recycling.measure",
    *(
        f"training.{key}"
        for key in (
            "threads", "strategy", "execution", "channels_last", "eval_interval", "checkpoint_interval", "checkpoints",
            "spectra", "timeout", "tensor_parallel", "replicas", "recompute",
        )
    ),
)  # fmt: skip
"""How it is computed, and when it is looked at: no other numbers are meant."""

_SEED = re.compile(r"[-_. ]?(seed)?[-_. ]?[0-9]+$|[-_. ]seed[-_. ]?[0-9]+-[0-9a-f]{6,}$")
"""A seed at the end of a name; in a sweep the digest of the run's settings follows it."""
_CHECKPOINT = re.compile(r"checkpoint-\d+(\.pt)?")
_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")


def shaping_settings(run: Mapping[str, Any], method: str) -> Settings:
    """The settings of a run that shape its model or its training, but for those that every observation names.

    Args:
        run: a `run.json`; what an older one leaves unsaid is the default.
        method: how it was trained; masks are nothing to a method without any.
    """
    config = run.get("config")
    if not isinstance(config, Mapping):
        return ()
    found = {**dict(_flat(asdict(RunConfig()))), **dict(_flat(config)), **_settled(run)}
    file = found["plan.file"]
    unheard = (*_ELSEWHERE, *_OF_THE_MACHINE, *_unheard_by(method))
    kept = {key: _said(key, value) for key, value in found.items() if not key.startswith(unheard)}
    if file and method != "dense":  # a plan that was made elsewhere is known by its digest alone
        kept["plan.digest"] = str(run.get("plan_digest", ""))[:8]
    if isinstance(soup := run.get("soup"), Mapping):  # an average of runs is no seed of them
        kept["soup"] = f"{soup.get('kind', '')} of {len(soup.get('runs', ()))}"
    if not found["distillation.teacher"]:
        kept = {key: value for key, value in kept.items() if not key.startswith("distillation.")}
    return tuple(sorted(kept.items()))


def _settled(run: Mapping[str, Any]) -> dict[str, Any]:
    """What "auto" and epochs came to."""
    found = {f"training.{key}": run[key] for key in ("precision", "steps") if key in run}
    return {**found, "training.epochs": ""} if "steps" in run else found


def _unheard_by(method: str) -> tuple[str, ...]:
    match method:
        case "dense":
            return ("method.", "plan.keep_dense", "plan.round_to")
        case "densified":
            return ("method.",)
    return ()


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def without_seed(name: str) -> str:
    """The name of a run as its other seeds have it too."""
    return _SEED.sub("", name) or name


def _beginning(path: PurePath) -> str:
    """A run, or a checkpoint of one, as other seeds begin with one of their own; where the run lies says nothing."""
    if _CHECKPOINT.fullmatch(path.name):
        return f"{without_seed(path.parent.name)}/{path.name}"
    if path.suffix in _WEIGHTS:
        return f"{without_seed(path.stem)}{path.suffix}"
    return without_seed(path.name)


def _said(key: str, value: Any) -> str:
    if key == "data.path":  # the same data lie elsewhere on every machine
        return PurePath(str(value)).name
    if key in ("start.checkpoint", "distillation.teacher"):
        return _beginning(PurePath(str(value))) if value else "no"
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "default"
        case list() | tuple():
            return "+".join(map(str, value))
        case int() | float():
            return f"{value:g}"
    return str(value)
