"""One-shot pruning at the start by saliency |θ·g| of a batch (SNIP, Lee et al., arXiv 1810.02340)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Asked, Order, RunMethod, Scores
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import top_k_mask


@dataclass(frozen=True, slots=True)
class Saliency(RunMethod):
    """One-shot pruning by saliency |θ·g| of the first step's batch (SNIP, arXiv 1810.02340).

    It takes the place of the optimizer's step; then masks stay.

    Attributes:
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" ranks all weights together,
            as the paper does, and keeps their total only: what it costs is for the ledger to say.

    Raises:
        InputError: an unknown scope.
    """

    scope: Literal["layer", "global"] = "layer"

    name = "snip"
    order = Order.REPLACE
    scores = Scores.SALIENCY
    starts_dense = True
    keep_values = True

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "global"):
            raise InputError(f"saliency over {self.scope!r} is not known; scopes are layer and global.")

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm that ranks weights in each layer, or all together, as the run says."""
        return cls(asked.config.ranking)

    @property
    def crosses_layers(self) -> bool:
        """Whether counts move between layers: where all weights are ranked together."""
        return self.scope == "global"

    def due(self, step: int) -> bool:
        """Whether masks change at that step: at step 0 alone."""
        return step == 0

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the most salient weights."""
        scores = [_saliency(x) for x in layers]
        if self.scope == "layer":
            return [_kept(x.largest(s, x.target)) for s, x in zip(scores, layers, strict=True)]
        together = torch.cat([s.reshape(-1) for s in scores]).view(1, -1)
        chosen = top_k_mask(together, sum(x.target for x in layers)).view(-1)
        parts = torch.split(chosen, [s.numel() for s in scores])
        return [_kept(part.view(s.shape)) for part, s in zip(parts, scores, strict=True)]


def _kept(mask: Tensor) -> Change:
    return Change(mask, torch.zeros_like(mask))


def _saliency(layer: Layer) -> Tensor:
    assert layer.saliency is not None
    return layer.saliency
