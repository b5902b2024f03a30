"""SET: drop by magnitude, grow at random (Mocanu et al., 2018, arXiv 1707.04780)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iftplan.nn.masking.algorithms.base import Scores
from iftplan.nn.masking.algorithms.exchange.drop_grow import at_random
from iftplan.nn.masking.algorithms.exchange.exchange import DropGrow
from iftplan.nn.masking.layer import Layer


@dataclass(frozen=True, slots=True)
class SET(DropGrow):
    """Sparse evolutionary training (arXiv 1707.04780), which grows at random.

    As in the paper, only weights that were inactive can grow. No dense gradient is needed, so every step costs the same.
    """

    regrow: bool = False

    name = "set"
    scores = Scores.NONE

    def growth(self, layer: Layer) -> Tensor:
        """Scores to grow by: uniform random numbers, (rows, units)."""
        return at_random(layer)
