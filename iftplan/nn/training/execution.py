"""Training with sparse kernels: which runs can, and how they are switched to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.execution.execute import execute_sparse_
from iftplan.runs.methods import METHODS
from iftplan.runs.settings import RunConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_METHODS: Final = tuple(
    name
    for name, method in METHODS.items()
    if method.masked and not (method.straight or method.averages or method.selective)
)
"""Those that keep weights at zero off their masks; others compute with all weights, or their gradients, in every step."""


def run_sparse_(network: nn.Module, config: RunConfig, fabric: Fabric) -> nn.Module:
    """Switch a run's network to kernels that skip masked weights, in place.

    Args:
        network: with its masks.
        config: of the run, whose execution is sparse or compact.
        fabric: the engine, whose precision, device and number of processes count.

    Raises:
        InputError: kernels cannot run it, or would save nothing.
    """
    asked = f"training.execution={config.training.execution}"
    if config.method.name not in _METHODS:
        raise InputError(
            f"{asked} only computes with the weights in the masks, but {config.method.name} "
            "needs all weights in every step; use training.execution=dense, or one of the methods "
            f"{', '.join(_METHODS)}."
        )
    precision, device = str(fabric._precision.precision), fabric.device.type
    if device != "cpu" or precision != "32-true":
        raise InputError(
            f"{asked} only has kernels for float32 on the CPU, but this run is in {precision} "
            f"on {device}; set training.precision=32-true on a machine without an accelerator, or "
            "training.execution=dense."
        )
    if config.training.strategy == "fsdp":
        raise InputError(
            f"{asked} reads whole weights, which fsdp distributes over processes; use training.strategy=ddp."
        )
    if config.training.execution == "compact":
        _check_compact(config, fabric.world_size)
    return execute_sparse_(network)


def _check_compact(config: RunConfig, processes: int) -> None:
    """Refuse what needs dense weights between two updates of the masks, or parameters that stay the same."""
    needing = {
        f"{processes} processes, which exchange the gradients of the parameters that there were first": processes
        > 1,
        "training.ema, which averages dense weights": config.training.ema > 0,
        "recycling, which looks at the weights of neurons": config.recycling.observes,
        "optimizer.decay=product, which looks at whole factors": config.optimizer.decay == "product",
    }
    for what in (what for what, there in needing.items() if there):
        raise InputError(
            f"training.execution=compact has no dense weights between updates of the masks, and cannot go with {what}; use "
            "training.execution=sparse."
        )
