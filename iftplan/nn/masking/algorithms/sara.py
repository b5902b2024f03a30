"""SaRA: train the smallest weights of a dense network, and leave all others as they are (Hu et al., arXiv 2409.06633)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from iftplan.masks import NM, MaskStructure
from iftplan.nn.masking.algorithms.base import Asked, Order, RunMethod, Scores
from iftplan.nn.masking.algorithms.dense_weights.ste import check_refresh
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import top_k_mask


@dataclass(frozen=True, slots=True)
class SaRA(RunMethod):
    """Sparse fine-tuning of the weights that matter least (arXiv 2409.06633): a mask on gradients beside dense weights.

    Every weight computes. The masks of the plan say how many of each are trained: those with the smallest |θ| when
    training begins, and again every `refresh` steps. The paper takes all weights below a threshold, and chooses again after
    half of the training among those that are still below it.

    Attributes:
        refresh: steps from one choice to the next; None for a single choice.
        nuclear: λ of the nuclear norm of each matrix of trained weights, which is added to the loss so that what is learnt
            has a low rank (equation 5); 0 for none.
    """

    refresh: int | None = None
    nuclear: float = 0.0

    name = "sara"
    order = Order.AFTER
    scores = Scores.NONE
    starts_dense = True
    keep_values = True
    crosses_layers = False

    def __post_init__(self) -> None:
        if self.refresh is not None:
            check_refresh(self.refresh)

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm that chooses as often as the run says, or once, with the run's λ."""
        return cls(asked.config.refresh, asked.config.nuclear)

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on transposable tiles, within which there is no smallest weight of a row."""
        if not (isinstance(structure, NM) and structure.transposable):
            return ""
        return f"SaRA chooses the smallest weights of each row or matrix, and {structure} masks tie rows together; plan unstructured masks."

    def due(self, step: int) -> bool:
        """Whether weights are chosen anew at that step; the first choice is made before it."""
        return self.refresh is not None and step > 0 and step % self.refresh == 0

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """The smallest weights of every row, as many as the plan's masks keep, ties to the lowest index."""
        chosen = [top_k_mask(_smallness(x.magnitude), x.target) for x in layers]
        return [Change(mask, torch.zeros_like(mask)) for mask in chosen]


def _smallness(magnitude: Tensor) -> Tensor:
    """Scores that fall with the magnitude: differences to the largest would round small ones to the same number.

    Example:
        >>> _smallness(torch.tensor([[3.0, 1e-9, 2e-9]])).tolist()
        [[0.0, 2.0, 1.0]]
    """
    order = magnitude.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(magnitude.shape[1], device=magnitude.device, dtype=torch.float64).expand_as(order)
    return torch.empty_like(places.contiguous()).scatter_(1, order, places)
