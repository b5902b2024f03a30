"""Masks that stay as they were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from iftplan.nn.masking.algorithms.base import Asked, Order, RunMethod, Scores
from iftplan.nn.masking.layer import Change, Layer


@dataclass(frozen=True, slots=True)
class Static(RunMethod):
    """Algorithm that never updates masks: for training with fixed masks, or fine-tuning a sparse checkpoint."""

    name = "static"
    order = Order.AFTER
    scores = Scores.NONE
    starts_dense = False
    keep_values = True
    crosses_layers = False

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Masks that stay, whatever else a run asks for."""
        return cls()

    @property
    def in_parts(self) -> bool:
        """Whether masks can be sharded: nothing is chosen."""
        return True

    def due(self, step: int) -> bool:
        """Whether masks change at that step: they never do."""
        return False

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """The present masks."""
        return [Change(x.mask, torch.zeros_like(x.mask)) for x in layers]
