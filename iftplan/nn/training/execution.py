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
        config: of the run.
        fabric: the engine, whose precision and device count.

    Raises:
        InputError: kernels cannot run it, or would save nothing.
    """
    if config.method.name not in _METHODS:
        raise InputError(
            f"training.execution=sparse only computes with the weights in the masks, but {config.method.name} "
            "needs all weights in every step; use training.execution=dense, or one of the methods "
            f"{', '.join(_METHODS)}."
        )
    precision, device = str(fabric._precision.precision), fabric.device.type
    if device != "cpu" or precision != "32-true":
        raise InputError(
            f"training.execution=sparse only has kernels for float32 on the CPU, but this run is in {precision} "
            f"on {device}; set training.precision=32-true on a machine without an accelerator, or "
            "training.execution=dense."
        )
    if config.training.strategy == "fsdp":
        raise InputError(
            "training.execution=sparse reads whole weights, which fsdp distributes over processes; use "
            "training.strategy=ddp."
        )
    return execute_sparse_(network)
