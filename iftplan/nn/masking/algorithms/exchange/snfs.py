"""Sparse momentum: grow and redistribute by averages of dense gradients (SNFS, Dettmers and Zettlemoyer, arXiv 1907.04840)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.algorithms.exchange.exchange import DropGrow
from iftplan.nn.masking.algorithms.exchange.redistribution import Redistribution
from iftplan.nn.masking.layer import Layer


@dataclass(frozen=True, slots=True)
class SNFS(DropGrow):
    """Sparse networks from scratch (arXiv 1907.04840): drops by |θ|, grows by |m|, redistributes by the mean |m|.

    m = α·m + (1 - α)·g averages the dense gradients of all steps until the last update, so that each of them costs
    2·f_S + f_D. As in the paper only what was inactive can grow.

    Attributes:
        redistribution: by what freed MACs are given to layers; the paper's is "momentum". "none" keeps the plan's counts
            of every layer, and grows by momentum only.
        smoothing: α.

    Raises:
        InputError: an unknown redistribution, or a smoothing outside of [0, 1).
    """

    regrow: bool = False
    redistribution: Redistribution = "momentum"
    smoothing: float = 0.9

    name = "snfs"
    scores = Scores.AVERAGE

    def __post_init__(self, interval: int | None, begin: float | None, end: float | None) -> None:
        super(SNFS, self).__post_init__(interval, begin, end)
        if not 0 <= self.smoothing < 1:
            raise InputError(
                f"an average of gradients cannot keep {self.smoothing!r} of itself; write a number in [0, 1)."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule, with the run's α."""
        return replace(super(SNFS, cls).of(asked), smoothing=asked.config.smoothing)

    def averages(self, step: int) -> bool:
        """Whether the gradients of that step are still needed: until masks change for the last time."""
        last = self.updates.last_due
        return last is not None and step <= last

    def growth(self, layer: Layer) -> Tensor:
        """Scores |m| of averaged gradients, (rows, units)."""
        assert layer.gradient is not None
        return layer.gradient
