"""Runs that begin with the weights of another run, with its masks or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from iftplan.base.errors import InputError, StaleError
from iftplan.nn.export.finalize import densify_
from iftplan.nn.masking.loading import load_masked_
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.best import best_step
from iftplan.nn.training.records.shard_files import MANIFEST
from iftplan.nn.training.records.state_check import check_state, loading
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import RunConfig


def begin_from_(network: nn.Module, config: RunConfig, plan_digest: str, say: Callable[[str], None]) -> str:
    """Load the initial weights and masks of a run into a network, in place; no masks for the method "densified".

    Args:
        network: as the plan makes it.
        config: names a run's directory or one of its checkpoints.
        plan_digest: of the plan, which has to be the one that the weights were trained for, or one of the same shapes
            and counts: the same model with an input of another length, say.
        say: takes a sentence on each checkpoint that is refused.

    Returns:
        Identity of these weights: the plan and step of the checkpoint, and its run's settings.

    Raises:
        InputError: there is no such checkpoint, or the method would drop its masks.
        StaleError: it is of another plan.
    """
    name = config.start.checkpoint
    if METHODS[config.method.name].gradual:  # straight ones begin with zeros off the masks
        raise InputError(
            f"the method {config.method.name} starts dense and would drop the masks of {name}; continue with "
            "static, set, rigl or srste, or train all weights with densified."
        )
    step, state = checkpoint_at(Path(name), say)
    identity = state["identity"]
    if identity["plan"] != plan_digest and _kept(state["model"]) != _kept(network.state_dict()):
        raise StaleError(
            f"{name} was trained for another plan (digest {identity['plan'][:12]}…) than this run has "
            f"({plan_digest[:12]}…); use the plan.json beside it."
        )
    with loading(name):
        load_masked_(network, state["model"])
    if config.method.name == "densified":
        densify_(network)
    return f"{identity['run']}:{step}"


def _kept(state: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of each tensor, and the number of weights that each mask keeps."""
    return {
        name: (tuple(value.shape), int(value.sum()) if name.endswith(SUFFIX) else 0)
        for name, value in state.items()
    }


def checkpoint_at(path: Path, say: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
    """Step and state of a checkpoint, or of the one that a run directory stands for: its best, else its newest.

    Args:
        path: of a checkpoint or a run directory.
        say: takes a sentence on each checkpoint that is refused.

    Raises:
        InputError: there is none, or no run wrote it.
    """
    if path.is_file() or (path / MANIFEST).exists():
        step, state = checkpoints.step_of(path), checkpoints.read(path)
        check_state(state, step, str(path))
        return step, state
    found = checkpoints.newest(path, say) if path.is_dir() else None
    if found is None:
        raise InputError(
            f"{path} is neither a checkpoint nor a run directory with one; name checkpoint-….pt, or the --out of "
            "the run that made it."
        )
    step, state = found
    check_state(state, step, str(path))
    best = best_step(state["metrics"])
    if best in (None, step):
        return found
    state = checkpoints.read(checkpoints.path_of(path, best))
    check_state(state, best, str(path))
    return best, state


def evaluated_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """State dict of the network that a run's evaluations looked at: the moving average where it kept one."""
    average = state["average"]
    if average is None:
        return dict(state["model"])
    return {name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"}
