"""Pruning at the start without data, by synaptic flow (SynFlow, Tanaka et al., arXiv 2006.05467)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from iftplan.nn.masking.algorithms.at_start.ranking import AtStart, check_rounds, exponentially, salience
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding


@dataclass(frozen=True, slots=True)
class SynFlow(AtStart):
    """Synaptic flow (arXiv 2006.05467): saliency |θ·∂R/∂θ|, with R the sum of outputs of the network of |θ| on ones.

    All rounds are in the place of the optimizer's first step, whose batch only says what shape a sample has; a round is
    a pass over one sample of ones. After round t of T n·(k/n)^(t/T) of n weights are left (algorithm 1).

    Attributes:
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" ranks all weights together,
            as the paper does, and keeps their total only: what it costs is for the ledger to say.
        rounds: T; the paper's is 100.

    Raises:
        InputError: an unknown scope, or no rounds.
    """

    rounds: int = 100

    name = "synflow"
    scores = Scores.SYNAPTIC_FLOW

    def __post_init__(self) -> None:
        super(SynFlow, self).__post_init__()
        check_rounds(self.rounds)

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's rounds and ranking."""
        return cls(asked.config.ranking, asked.config.rounds or cls().rounds)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the weights with the largest flow, as many as that round leaves; `step` counts rounds here."""
        scores = [excluding(salience(x), ~x.mask) for x in layers]
        return self.best(layers, scores, exponentially(step + 1, self.rounds))
