"""A pruned network as the beginning of a run: its plan, its checkpoint of step 0, and how it was pruned."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from iftplan.base.documents import Document, dumps, write_text
from iftplan.base.errors import InputError
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.states import model_state


def refuse_used(directory: Path) -> None:
    """Refuse a directory that holds files.

    Raises:
        InputError: it does, or is a file.
    """
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise InputError(
            f"{directory} is not an empty directory; name another one for the pruned network, so that nothing is overwritten."
        )


def write_pruned(directory: Path, network: nn.Module, plan: Document, pruning: Document) -> Path:
    """Write `plan.json`, `pruning.json` and the checkpoint of step 0; returns the checkpoint.

    Another run starts from the directory, or from the checkpoint.

    Args:
        directory: made where it is missing.
        network: pruned, with its masks.
        plan: that its masks follow, sealed.
        pruning: how it was pruned, sealed.

    Raises:
        InputError: the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be made ({error.strerror}); name a directory that you may write to."
        ) from error
    state = {
        "identity": {"plan": plan["digest"], "run": pruning["digest"]},
        "processes": 1,
        "model": model_state(network),
        "optimizer": {},
        "scaler": {},
        "masks": None,
        "spending": {},
        "metrics": [],
        "step": 0,
        "average": None,
        "loss_sums": [],
        "loss_count": 0,
    }
    write_text(dumps(plan), str(directory / "plan.json"))
    write_text(dumps(pruning), str(directory / "pruning.json"))
    return checkpoints.write(directory, 0, state)
