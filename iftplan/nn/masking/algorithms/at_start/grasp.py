"""One-shot pruning at the start that preserves gradient flow (GraSP, Wang et al., arXiv 2002.07376)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from iftplan.nn.masking.algorithms.at_start.ranking import AtStart, at_once, check_told_apart, salience
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.layer import Change, Layer


@dataclass(frozen=True, slots=True)
class GraSP(AtStart):
    """Gradient signal preservation (arXiv 2002.07376): remove the weights with the largest -θ·Hg of the first batch.

    H is the loss's Hessian, so the step's backward pass has to keep its graph:
    `loss.backward(create_graph=masks.wants_graph)`. It takes the place of the optimizer's step; then masks stay.

    Attributes:
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" ranks all weights together,
            as the paper does, and keeps their total only: what it costs is for the ledger to say.

    Raises:
        InputError: an unknown scope.
    """

    name = "grasp"
    scores = Scores.CURVATURE

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm that ranks weights in each layer, or all together, as the run says."""
        return cls(asked.config.ranking)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the weights with the largest θ·Hg, without which gradients would become smallest."""
        found = [salience(x).double() for x in layers]
        check_told_apart(layers, found)
        least = torch.stack([x.min() for x in found]).min()
        return self.best(layers, [x - least for x in found], at_once)  # scores are not negative
