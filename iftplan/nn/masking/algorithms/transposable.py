"""Transposable N:M training with masks that are solved again from time to time (Hubara et al., arXiv 2102.08124)."""

from __future__ import annotations

from dataclasses import dataclass

from iftplan.nn.masking.algorithms.ste import StraightThrough


@dataclass(frozen=True, slots=True)
class Transposable(StraightThrough):
    """Straight-through estimation under transposable masks that are solved now and then (arXiv 2102.08124).

    Input gradients are sparse too, because a tile's columns keep N of M as its rows do.

    Attributes:
        refresh: steps from one solution to the next; 40 in the paper's code.
        pull: λ of SR-STE's pull; none in the paper.
    """

    refresh: int = 40
    pull: float = 0.0
