"""What methods that prune at the start share: masks of the best scores, in each weight or over all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.base import Order, RunMethod
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import top_k_mask

Left = Callable[[int, int], int]
"""How many of so many units stay, where so many do in the end."""


@dataclass(frozen=True, slots=True)
class AtStart(RunMethod):
    """Algorithm that chooses masks in the place of the first steps of the optimizer; then they stay.

    Attributes:
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" ranks all weights together,
            as the papers do, and keeps their total only: what it costs is for the ledger to say.

    Raises:
        InputError: an unknown scope.
    """

    scope: Literal["layer", "global"] = "layer"

    order = Order.REPLACE
    starts_dense = True
    keep_values = True

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "global"):
            raise InputError(f"saliency over {self.scope!r} is not known; scopes are layer and global.")

    @property
    def crosses_layers(self) -> bool:
        """Whether counts move between layers: where all weights are ranked together."""
        return self.scope == "global"

    def due(self, step: int) -> bool:
        """Whether masks change at that step: at step 0 alone."""
        return step == 0

    def best(self, layers: Sequence[Layer], scores: Sequence[Tensor], left: Left) -> list[Change]:
        """New masks of the largest scores.

        Args:
            layers: the weights.
            scores: theirs, (rows, units).
            left: how many stay of those that there are.

        Raises:
            InputError: nothing tells the weights of a layer apart.
        """
        check_told_apart(layers, scores)
        if self.scope == "layer":
            return [_kept(x.largest(s, left(x.units, x.target))) for s, x in zip(scores, layers, strict=True)]
        together = torch.cat([s.reshape(-1) for s in scores]).view(1, -1)
        chosen = top_k_mask(together, left(together.numel(), sum(x.target for x in layers))).view(-1)
        parts = torch.split(chosen, [s.numel() for s in scores])
        return [_kept(part.view(s.shape)) for part, s in zip(parts, scores, strict=True)]


def check_told_apart(layers: Sequence[Layer], scores: Sequence[Tensor]) -> None:
    """Refuse to choose among weights that all have score 0, or none.

    Args:
        layers: the weights.
        scores: theirs, (rows, units).

    Raises:
        InputError: nothing tells the weights of a layer apart.
    """
    for layer, score in zip(layers, scores, strict=True):
        if bool(score.isnan().any()):
            raise InputError(
                f"scores of {layer.name} are not numbers, so nothing says which weights to keep: its gradients, or theirs, are NaN. Take a method that looks at weights alone, or find the operation (torch.autograd.set_detect_anomaly(True))."
            )
        untouched = layer.target < layer.units and bool(
            layer.mask.all()
        )  # later rounds may leave a layer without a gradient
        if untouched and not score.any():
            raise InputError(
                f"every weight of {layer.name} has score 0, so nothing says which to keep: no gradient reaches them. Where residual "
                "blocks begin as identities, let the last norm of each begin with γ = 1 (training.zero_init_residual=false); else take a "
                "method that looks at weights alone."
            )


def at_once(units: int, target: int) -> int:
    """Number of units that stay where pruning has one round: the target."""
    return target


def exponentially(done: int, rounds: int) -> Left:
    """Rule by which every round leaves the same part of the units: n·(k/n)^(t/T) after round t of T.

    Args:
        done: rounds, with the present one.
        rounds: T.

    Example:
        >>> [exponentially(t, 3)(1000, 1) for t in (1, 2, 3)]
        [100, 10, 1]
    """

    def left(units: int, target: int) -> int:
        if done >= rounds or not target:
            return target
        share: float = (target / units) ** (done / rounds)
        return max(target, ceil(round(units * share, 6)))

    return left


def check_rounds(rounds: int) -> None:
    """Refuse less than one round of pruning.

    Raises:
        InputError: there are none.
    """
    if rounds < 1:
        raise InputError(f"pruning at the start cannot have {rounds} rounds; there is at least 1.")


def salience(layer: Layer) -> Tensor:
    """Scores of weights and gradients, (rows, units), which the algorithm has asked for."""
    assert layer.saliency is not None
    return layer.saliency


def _kept(mask: Tensor) -> Change:
    return Change(mask, torch.zeros_like(mask))
