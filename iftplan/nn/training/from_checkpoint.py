"""Runs that begin with trained weights: of another run or of a file, with their masks or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from iftplan.base.errors import InputError, StaleError
from iftplan.nn.export.finalize import densify_
from iftplan.nn.export.weights import holds_weights, weights_in
from iftplan.nn.masking.loading import load_masked_
from iftplan.nn.masks.masked_weights import is_mask
from iftplan.nn.sources import build
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.best import best_step
from iftplan.nn.training.records.shard_files import MANIFEST
from iftplan.nn.training.records.state_check import check_state, loading
from iftplan.nn.training.records.states import tensors_digest
from iftplan.nn.warmstart.adapters import merged
from iftplan.nn.warmstart.transfer import MaskPolicy, load_
from iftplan.nn.warmstart.warm_start import warm_start_
from iftplan.plans.plan import Plan
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import RunConfig


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Trained weights that a run can begin with.

    Attributes:
        identity: of these weights: the settings and step of a checkpoint, or a digest of the tensors.
        state: tensors and masks by name.
        plan: digest of the plan that they were trained for; empty for a state dict without one.
    """

    identity: str
    state: Mapping[str, Tensor]
    plan: str = ""


def begin_from_(
    network: nn.Module,
    config: RunConfig,
    plan: Plan,
    plan_digest: str,
    source: str,
    say: Callable[[str], None],
) -> str:
    """Load the initial weights and masks of a run into a network, in place; no masks for the method "densified".

    Args:
        network: as the plan makes it.
        config: names a run's directory or one of its checkpoints, or a file or folder with a state dict, and the layers
            that begin anew or without their masks.
        plan: that the network follows.
        plan_digest: of the plan.
        source: of the plan's dense model, whose weights a plan of other widths, branches or ranks can begin with.
        say: takes a sentence on each checkpoint that is refused, and on what was not loaded.

    Returns:
        Identity of these weights: the plan and step of the checkpoint and its run's settings, or a digest.

    Raises:
        InputError: there are no such weights, or the method would drop their masks.
        StaleError: tensors have other shapes, and are not said to begin anew.
    """
    start, method = config.start, METHODS[config.method.name]
    found = origin_of(Path(start.checkpoint), say)
    masked = any(is_mask(name, value, found.state) for name, value in found.state.items())
    if (method.gradual or method.selective) and masked:  # straight ones begin with zeros off the masks
        raise InputError(
            f"the method {config.method.name} starts dense and would drop the masks of {start.checkpoint}; continue with "
            "static, set, rigl or srste, or train all weights with densified."
        )
    theirs, own = _kept(found.state), _kept(network.state_dict())
    alike = theirs.keys() == own.keys() and all(theirs[name][0] == own[name][0] for name in own)
    same = alike and (found.plan == plan_digest or theirs == own)
    if same and not (start.fresh or start.drop or start.redraw):
        with loading(start.checkpoint):
            load_masked_(network, found.state)
        kept, meant = (sum(count for _, count in counts.values()) for counts in (theirs, own))
        if kept != meant:
            say(
                f"note: masks of {start.checkpoint} keep {kept} weights where the plan keeps {meant}, because its run had not ended or gave up neurons. Training goes on with as many."
            )
    else:
        try:
            _transfer_(network, found, config, say, dense_start=method.starts_dense and not masked)
        except StaleError:
            dense = None if masked or method.starts_dense else _dense_model(source, found)
            if dense is None:
                raise
            _widen_(network, dense, plan, config, say)
    if config.method.name == "densified":
        densify_(network)
    return found.identity


def _transfer_(
    network: nn.Module, found: Origin, config: RunConfig, say: Callable[[str], None], *, dense_start: bool
) -> None:
    """Load weights that were trained for another plan, another head, or none."""
    start = config.start
    choices: dict[str, MaskPolicy] = {
        **dict.fromkeys(start.drop, "drop"),
        **dict.fromkeys(start.redraw, "own"),
        "*": "keep",
    }
    try:
        moved = load_(network, found.state, fresh=start.fresh, masks=choices, dense_start=dense_start)
    except StaleError as error:
        other = (
            "was trained for another plan, whose plan.json lies beside it"
            if found.plan
            else "is of another network"
        )
        raise StaleError(
            f"{start.checkpoint} {other}. {str(error).replace('`fresh`', 'start.fresh')}"
        ) from error
    for names, what in (
        (moved.fresh, "begin with new values"),
        (moved.unused, "of the checkpoint are not used"),
        (moved.chosen, "have masks chosen by magnitude, because the checkpoint has none of their size"),
    ):
        if names:
            say(f"note: {len(names)} tensors {what}: {', '.join(names[:4])}{' …' if names[4:] else ''}")


def _dense_model(source: str, found: Origin) -> nn.Module | None:
    """The dense model with these weights; None if they are of another one."""
    dense = build(source, device="cpu")
    try:
        load_(dense, found.state)
    except StaleError:
        return None
    return dense


def _widen_(
    network: nn.Module, dense: nn.Module, plan: Plan, config: RunConfig, say: Callable[[str], None]
) -> None:
    """Give a network of other widths, branches or ranks the weights of its dense model, in place."""
    masks: Literal["draw", "keep"] = "draw" if plan.mask == "unstructured" else "keep"
    found = warm_start_(network, dense, plan, masks=masks, seed=config.seed)
    say(
        f"note: {config.start.checkpoint} holds the dense model, whose weights begin the plan's network; its output differs by {found.output:.3g} of the dense one's norm"
    )


def _kept(state: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape of each tensor, and the number of weights that each mask keeps."""
    return {
        name: (tuple(value.shape), int(value.sum()) if is_mask(name, value, state) else 0)
        for name, value in state.items()
    }


def origin_of(path: Path, say: Callable[[str], None]) -> Origin:
    """Trained weights of a run directory or checkpoint, or in a file or folder with a state dict.

    Args:
        path: where they lie.
        say: takes a sentence on each checkpoint that is refused.

    Raises:
        InputError: there are none.
    """
    if _is_weights(path):
        state = weights_in(path)
        return Origin(f"{tensors_digest(state)}:0", state)
    step, found = checkpoint_at(path, say)
    return Origin(
        f"{found['identity']['run']}:{step}", merged(evaluated_weights(found)), found["identity"]["plan"]
    )


def _is_weights(path: Path) -> bool:
    """Whether a path is a state dict and no checkpoint of a run."""
    if path.is_dir():
        return holds_weights(path)
    return path.suffix in (".safetensors", ".bin", ".pth") or (
        path.suffix == ".pt" and not checkpoints.is_named(path)
    )


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
            f"{path} is neither a checkpoint nor a run directory with one, and holds no weights; name checkpoint-….pt, the "
            "directory of a run, or a file or folder with a state dict."
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
