"""SRigL: RigL with one fan-in for all neurons of a layer, and neurons that are given up (Lasby et al., arXiv 2305.02299).

Of a layer with `active` weights, fan-in k and `nnz` weights in the plan:

    n_prune = ⌊active·f_t⌋,  n_keep = active - n_prune
    salient  the n_keep largest |θ| of the layer, and the n_prune largest |g| of what is inactive
    a neuron with fewer than max(1, ⌊γ·k⌋) salient weights is ablated: it loses all its weights
    k' = ⌊nnz/neurons that are left⌋, and no more than there are inputs
    a neuron that is left keeps its largest weights among the n_keep, and regrows by |g| up to k'

The layer chooses what is dropped, not each neuron; so that a neuron may regrow more than it dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor
from typing import Self

import torch
from torch import Tensor

from iftplan.masks import ConstantFanIn, MaskStructure
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.algorithms.exchange.exchange import Exchange, annealing
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding, first, top_k_mask


@dataclass(frozen=True, slots=True)
class SRigL(Exchange):
    """Structured RigL (arXiv 2305.02299), of constant fan-in masks.

    Attributes:
        ablation: γ: a neuron is removed when the salient share of its fan-in is below γ; 0 removes none.
        keep_values: whether a weight dropped and grown back in one update keeps its value; else it restarts at 0.
        exempt: weights whose neurons are never ablated, such as a classifier's; None for the last masked one.
    """

    ablation: float = 0.3
    keep_values: bool = True
    exempt: Collection[str] | None = None

    name = "srigl"
    scores = Scores.GRADIENT

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule, with the run's γ."""
        config = asked.config
        return cls(
            asked.updates, annealing(config), asked.order, config.ablation, config.keep_values, asked.exempt
        )

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on masks that are not constant fan-in."""
        if isinstance(structure, ConstantFanIn):
            return ""
        return f"SRigL moves weights between neurons of one fan-in, and the masks are {structure}; take RigL for these, or plan with the structure fan-in."

    def experts_refusal(self, weight: str) -> str:
        """Sentence on experts of which neurons would be given up."""
        if not self.ablation:
            return ""
        return f"SRigL gives up neurons, which would leave the experts of {weight} with counts of their own; take SRigL with ablation=0, or RigL."

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks: ablate neurons, drop by |θ|, grow by |g| (arXiv 2305.02299)."""
        share = self.share(step)
        return [self._changed(x, share, last=x is layers[-1]) for x in layers]

    def _changed(self, layer: Layer, fraction: float, *, last: bool) -> Change:
        spared = last if self.exempt is None else layer.name in self.exempt
        return structured_drop_grow(layer, fraction, 0.0 if spared or not self.ablation else self.ablation)


def structured_drop_grow(layer: Layer, fraction: float, ablation: float) -> Change:
    """The new mask of one weight, whose rows are neurons.

    Args:
        layer: the weight.
        fraction: f_t.
        ablation: γ; 0 ablates no neuron.
    """
    assert layer.gradient is not None
    active = int(layer.mask.count_nonzero())
    dropped = min(active, max(0, floor(round(active * fraction, 6))))
    kept = _of_all(excluding(layer.magnitude, ~layer.mask), active - dropped)
    lives = alive(layer, kept, dropped, ablation)
    budget = layer.target * len(layer.mask)
    fan_in = min(layer.units, budget // max(1, int(lives.count_nonzero())))
    kept = first(excluding(layer.magnitude, ~kept), kept.sum(1).clamp(max=fan_in) * lives)
    grown = first(excluding(layer.gradient, kept), (fan_in - kept.sum(1)) * lives)
    return Change(kept | grown, grown)


def alive(layer: Layer, kept: Tensor, dropped: int, ablation: float) -> Tensor:
    """Neurons with enough salient weights; all of them where none would be left.

    Args:
        layer: the weight.
        kept: the largest |θ| of the layer, (neurons, inputs).
        dropped: how many of the largest |g| of what is inactive are salient too.
        ablation: γ; 0 for all neurons.
    """
    assert layer.gradient is not None
    everyone = torch.ones(len(layer.mask), dtype=torch.bool, device=layer.mask.device)
    if not ablation:
        return everyone
    inactive = int((~layer.mask).count_nonzero())
    salient = kept | _of_all(excluding(layer.gradient, layer.mask), min(dropped, inactive))
    fan_in = int(layer.mask.sum(1).max())
    enough = salient.sum(1) >= max(1, floor(round(ablation * fan_in, 6)))
    return enough if bool(enough.any()) else everyone


def _of_all(scores: Tensor, count: int) -> Tensor:
    """The largest of all rows together."""
    return top_k_mask(scores.reshape(1, -1), count).view(scores.shape)
