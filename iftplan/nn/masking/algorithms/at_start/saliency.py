"""One-shot pruning at the start by saliency |θ·g| of a batch (SNIP, Lee et al., arXiv 1810.02340)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from iftplan.nn.masking.algorithms.at_start.ranking import AtStart, at_once, salience
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.layer import Change, Layer


@dataclass(frozen=True, slots=True)
class Saliency(AtStart):
    """One-shot pruning by saliency |θ·g| of the first step's batch (SNIP, arXiv 1810.02340).

    It replaces the optimizer's first step; masks stay the same afterwards.

    Attributes:
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" ranks all weights together,
            as the paper does, and keeps their total only: what it costs is for the ledger to say.

    Raises:
        InputError: an unknown scope.
    """

    name = "snip"
    scores = Scores.SALIENCY

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm that ranks weights in each layer, or all together, as the run says."""
        return cls(asked.config.ranking)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the most salient weights."""
        return self.best(layers, [salience(x) for x in layers], at_once)
