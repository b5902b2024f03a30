"""What every sparse-training algorithm answers; each is a frozen value in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

from iftplan.nn.masking.layer import Change, Layer


class Order(StrEnum):
    """Order of a mask update and the optimizer's step of the same iteration.

    REPLACE: the update takes its place (RigL, arXiv 1911.11134, algorithm 1).
    AFTER: the step is taken first, on the old mask (Sparse-IFT, Cerebras).
    """

    REPLACE = "replace"
    AFTER = "after"


class Scores(StrEnum):
    """Scores that an update looks at beside the weights."""

    NONE = "none"
    GRADIENT = "gradient"
    SALIENCY = "saliency"


class Algorithm(Protocol):
    """Algorithm that changes masks over training.

    Attributes:
        order: see `Order`.
        scores: whether updates need the dense gradient, and for what.
        starts_dense: whether training begins with every weight, masks being the counts to arrive at.
        keep_values: whether a weight that is dropped and grown back in one update keeps its value (google/rigl);
            else it restarts at 0, as all others that grow do.
        crosses_layers: whether counts move from one weight to another, which only unstructured masks can follow.
    """

    @property
    def order(self) -> Order: ...  # noqa: D102  (above)
    @property
    def scores(self) -> Scores: ...  # noqa: D102
    @property
    def starts_dense(self) -> bool: ...  # noqa: D102
    @property
    def keep_values(self) -> bool: ...  # noqa: D102
    @property
    def crosses_layers(self) -> bool: ...  # noqa: D102

    def due(self, step: int) -> bool:
        """Whether masks change at that step; steps count from 0."""

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks in the layers' order; nothing is changed in place."""


@runtime_checkable
class LatentAlgorithm(Algorithm, Protocol):
    """An algorithm that trains a dense weight θ behind each masked one (`iftplan.nn.masking.regimes.latents`).

    Its `due(t)` says whether step t computes with masks that are chosen anew, and `update` gets |θ| of all weights.

    Attributes:
        straight: whether θ's gradient is that of the masked weight as it is (straight-through), or passes through
            the mask as the chain rule has it.
        pull: λ of λ·(1-m)⊙θ, which is added to the gradient (SR-STE).
    """

    @property
    def straight(self) -> bool: ...  # noqa: D102  (above)
    @property
    def pull(self) -> float: ...  # noqa: D102

    def leak(self, step: int) -> float:
        """D of the forward weight θ⊙(m + D·(1-m)) at that step, between 0 and 1."""
