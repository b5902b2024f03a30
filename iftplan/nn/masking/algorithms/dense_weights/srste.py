"""SR-STE: straight-through estimation that pulls what is masked towards zero (Zhou et al., arXiv 2102.04010)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.dense_weights.ste import StraightThrough


@dataclass(frozen=True, slots=True)
class SRSTE(StraightThrough):
    """Straight-through estimation with a pull towards zero (arXiv 2102.04010): forward θ⊙m(θ), gradient g + λ·(1-m)⊙θ.

    `STE` is λ = 0.

    Attributes:
        pull: λ; the paper's is 2e-4.
        refresh: number of steps between two choices of masks; 1 in the paper.
    """

    pull: float = 2e-4
    refresh: int = 1

    name = "srste"

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's λ, or the paper's."""
        pull = cls().pull if asked.config.pull is None else asked.config.pull
        return cls(pull, asked.config.refresh or 1)
