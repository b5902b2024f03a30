"""Optimizers without the wrappers that engines put around them."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer


def innermost_optimizer(optimizer: Any) -> Optimizer:
    """The torch optimizer inside an engine's wrapper (lightning-fabric, accelerate)."""
    while not type(optimizer).__module__.startswith("torch.") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    found: Optimizer = optimizer
    return found
