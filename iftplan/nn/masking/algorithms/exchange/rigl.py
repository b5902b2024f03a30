"""RigL: drop by magnitude, grow by the dense gradient (Evci et al., arXiv 1911.11134, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from iftplan.nn.masking.algorithms.base import Scores
from iftplan.nn.masking.algorithms.exchange.exchange import DropGrow
from iftplan.nn.masking.layer import Layer


@dataclass(frozen=True, slots=True)
class RigL(DropGrow):
    """Rigged lottery (arXiv 1911.11134): grows by |g|; what was just dropped may grow back at once."""

    name = "rigl"
    scores = Scores.GRADIENT

    def growth(self, layer: Layer) -> Tensor:
        """Scores |g| of the dense gradient, (rows, units)."""
        assert layer.gradient is not None
        return layer.gradient
