"""Masks that stay as they were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from iftplan.nn.masking.algorithms.base import Order, Scores
from iftplan.nn.masking.layer import Change, Layer


@dataclass(frozen=True, slots=True)
class Static:
    """Algorithm without updates: one mask throughout, also for fine-tuning a sparse checkpoint."""

    order = Order.AFTER
    scores = Scores.NONE
    starts_dense = False
    keep_values = True
    crosses_layers = False

    def due(self, step: int) -> bool:
        """Whether masks change at that step: they never do."""
        return False

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """The present masks."""
        return [Change(x.mask, torch.zeros_like(x.mask)) for x in layers]
