"""Pruning at the start in rounds, by the saliency in the pruned network (FORCE, de Jorge et al., arXiv 2006.09081)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from iftplan.nn.masking.algorithms.at_start.ranking import AtStart, check_rounds, exponentially, salience
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding
from iftplan.runs.cautions import arrival_cautions


@dataclass(frozen=True, slots=True)
class Force(AtStart):
    """Foresight connection sensitivity (FORCE, arXiv 2006.09081): saliency |θ·g| where g is the pruned network's.

    There are T rounds, each on a batch and in the place of a step of the optimizer; after round t n·(k/n)^(t/T) of n
    weights are left (equation 8). One round is SNIP.

    Attributes:
        scope: "layer" keeps every weight's count, and so the plan's MACs; "global" ranks all weights together,
            as the paper does, and keeps their total only: what it costs is for the ledger to say.
        rounds: T; 10 in the authors' code.
        regrow: whether weights that an earlier round has pruned may come back, with the values they had; without,
            it is the paper's iterative SNIP.

    Raises:
        InputError: an unknown scope, or no rounds.
    """

    rounds: int = 10
    regrow: bool = True

    name = "force"
    scores = Scores.RECALLED

    def __post_init__(self) -> None:
        super(Force, self).__post_init__()
        check_rounds(self.rounds)

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's rounds and ranking; pruned weights come back unless the run says no."""
        config, default = asked.config, cls()
        regrow = default.regrow if config.regrow is None else config.regrow
        return cls(config.ranking, config.rounds or default.rounds, regrow)

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentence about a run that ends before the last round does.

        Args:
            steps: of the run.
            rate: looked at by no method that prunes at the start.
        """
        return arrival_cautions(self.rounds, steps)

    def due(self, step: int) -> bool:
        """Whether masks change at that step: at the first T."""
        return step < self.rounds

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks of the most salient weights, as many as the round leaves."""
        scores = [salience(x) if self.regrow else excluding(salience(x), ~x.mask) for x in layers]
        return self.best(layers, scores, exponentially(step + 1, self.rounds))
