"""Optimizer state of masked weights: whatever has the weight's shape is zero off the mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def innermost(optimizer: Any) -> Optimizer:
    """The torch optimizer inside an engine's wrapper (lightning-fabric, accelerate)."""
    while not type(optimizer).__module__.startswith("torch.") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    found: Optimizer = optimizer
    return found


def slots(optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[Tensor]:
    """Momentum, first and second moments and whatever else has the parameter's shape."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield value


@torch.no_grad()
def clear_slots_(optimizer: Optimizer, parameter: nn.Parameter, off: Tensor) -> None:
    """Set a parameter's state to zero where `off`, in place."""
    for slot in slots(optimizer, parameter):
        slot.masked_fill_(off, 0)
