"""The engine under a run: lightning-fabric, standalone; one process unless a launcher such as torchrun made more."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import torch

from iftplan.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def engine_for(precision: str, loggers: list[Any] | None = None) -> Fabric:
    """The engine, launched.

    Args:
        precision: "auto", or one of lightning-fabric's.
        loggers: lightning-fabric's, told every row of metrics.

    Raises:
        InputError: lightning-fabric is missing.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "training runs on lightning-fabric, which is not installed; install it with: pip install 'iftplan[train]'."
        ) from error
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=int(os.environ.get("WORLD_SIZE", "1")) // local,
        precision=cast("Any", precision_for(precision)),  # one of its literals
        loggers=loggers or [],
    )
    fabric.launch()
    return fabric


def precision_for(asked: str) -> str:
    """What "auto" is on this machine: bfloat16 where it is computed by the hardware."""
    if asked != "auto":
        return asked
    return "bf16-mixed" if has_fast_bf16() else "32-true"


def has_fast_bf16() -> bool:
    """Whether the accelerator, or the processor where there is none, computes in bfloat16 itself."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
