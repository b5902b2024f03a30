"""Transposable N:M training with masks that are solved again from time to time (Hubara et al., arXiv 2102.08124)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from iftplan.masks import NM, MaskStructure
from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.dense_weights.ste import StraightThrough


@dataclass(frozen=True, slots=True)
class Transposable(StraightThrough):
    """Straight-through estimation under transposable masks, which are solved every `refresh` steps (arXiv 2102.08124).

    Input gradients are sparse too, because a tile's columns keep N of M as its rows do.

    Attributes:
        refresh: steps from one solution to the next; 40 in the paper's code.
        pull: λ of SR-STE's pull towards zero off the mask; 0 in the paper.
    """

    refresh: int = 40
    pull: float = 0.0

    name = "transposable"

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm that solves tiles as often as the run says, or as the paper's code does."""
        return cls(asked.config.refresh or cls().refresh, asked.config.pull or 0.0)

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on masks that are not transposable N:M."""
        if isinstance(structure, NM) and structure.transposable:
            return ""
        near = f"{structure.kept}:{structure.of}T" if isinstance(structure, NM) else "2:8T"
        return f"transposable training solves N:M tiles, and the masks are {structure}; take srste or ste for these, or plan with a structure such as {near}."
