"""Straight-through estimation: compute with the largest weights, train them all (Bengio et al., arXiv 1308.3432)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure
from iftplan.nn.masking.algorithms.base import Asked, Order, RunMethod, Scores
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.best import choose


def check_refresh(refresh: int) -> None:
    """Refuse to choose masks more often than at every step.

    Raises:
        InputError: less than one step lies between two choices.
    """
    if refresh < 1:
        raise InputError(f"masks are chosen every {refresh} steps; it has to be at least every 1.")


class StraightThrough(RunMethod):
    """Base of methods with a dense weight θ behind each masked one: the largest |θ| are kept.

    Attributes:
        refresh: number of steps between two choices of masks.
    """

    __slots__ = ()

    refresh: int
    order = Order.AFTER
    scores = Scores.NONE
    starts_dense = True
    keep_values = True
    crosses_layers = False
    straight: bool = True
    pull: float = 0.0
    margin: float | None = None
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_refresh(self.refresh)

    def due(self, step: int) -> bool:
        """Whether masks are chosen anew at that step: every `refresh` steps, from the first on."""
        return step % self.refresh == 0

    def leak(self, step: int) -> float:
        """Factor D of pruned weights in the forward pass: 0, nothing passes a mask."""
        return 0.0

    def shrinking(self, step: int) -> float:
        """Part α of the L1 decay in what moves masked weights: 0, they have their gradient."""
        return 0.0

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the largest |θ| that the structure of the step lets stay."""
        masks = [torch.cat([choose(*self.goal(x, step)) for x in layer.each()]) for layer in layers]
        return [Change(mask, torch.zeros_like(mask)) for mask in masks]

    def goal(self, layer: Layer, step: int) -> tuple[MaskStructure, Tensor, int]:
        """Structure, scores and count of a mask at that step: the plan's, and |θ|."""
        return layer.structure, layer.magnitude, layer.target


@dataclass(frozen=True, slots=True)
class STE(StraightThrough):
    """Straight-through estimation (arXiv 1308.3432): forward θ⊙m(θ), gradient g as if there were no mask.

    The optimizer's state is dense.

    Attributes:
        refresh: number of steps between two choices of masks.
    """

    refresh: int = 1

    name = "ste"

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm that chooses anew as often as the run says, or in every step."""
        return cls(asked.config.refresh or 1)
