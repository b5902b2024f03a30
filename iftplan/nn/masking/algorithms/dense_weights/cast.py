"""CAST: dense forward passes in which masked weights shrink to zero on a schedule (Huang et al., arXiv 2509.25996)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from iftplan.masks import NM, MaskStructure
from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.dense_weights.ste import StraightThrough
from iftplan.runs.cautions import arrival_cautions
from iftplan.runs.schedules import known_step, step_at


@dataclass(frozen=True, slots=True)
class CAST(StraightThrough):
    """Continuous N:M training (arXiv 2509.25996): forward θ, and off the mask (1-α)·g + α·λ·sign(θ) instead of g.

    α rises linearly from 0 to 1. With the optimizer `adams` the two are averaged after the momentum, as the paper has
    it (algorithm 1, equation 8), so that the decay is not smoothed and every weight shrinks at the same rate. At the end
    what is left off the masks is removed. The paper also scales the weights of each row by learnt factors, which batch
    norms do already and is left out here, and learns from the dense network with a third of the loss (`distillation`).

    Attributes:
        decay: λ, the weight of the L1 decay; the paper's for LLaMA2-7B.
        refresh: number of steps between two choices of masks; 10 in the paper.
        begin: step from which α rises, or a fraction of training as a float.
        end: step at which α is 1 and what is off the masks is removed, or a fraction of training as a float. Training
            goes on straight through the masks after it; the paper ends there.
    """

    decay: float = 4e-7
    refresh: int = 10
    begin: int | float = 0
    end: int | float = 1.0

    name = "cast"

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's λ and choices or the paper's, ending where the run's schedule does."""
        config, default = asked.config, cls()
        decay = default.decay if config.pull is None else config.pull
        return cls(decay, config.refresh or default.refresh, asked.updates.begin, asked.updates.end)

    @property
    def needs_length(self) -> bool:
        """Whether the decay begins or ends at a fraction of training."""
        return isinstance(self.begin, float) or isinstance(self.end, float)

    def over(self, steps: int) -> Self:
        """The same algorithm in a training of so many optimizer steps."""
        return replace(self, begin=step_at(self.begin, steps), end=step_at(self.end, steps))

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on transposable masks, which would be solved in dense passes that do not need them."""
        if not (isinstance(structure, NM) and structure.transposable):
            return ""
        return f"CAST chooses N of every M weights of a row, and the masks are {structure}; take transposable for these, or plan {structure.kept}:{structure.of}."

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about a run that ends before the decay does; in the paper it ends with the run.

        Args:
            steps: of the run.
            rate: looked at by no method that arrives.
        """
        return arrival_cautions(self.arrival, steps) if self.arrival > steps else []

    @property
    def arrival(self) -> int:
        """Step from which forward passes are sparse."""
        return known_step(self.end)

    def leak(self, step: int) -> float:
        """Factor of masked weights in the forward pass: 1 until the end, then 0."""
        return float(step < known_step(self.end))

    def shrinking(self, step: int) -> float:
        """Part α of the decay in what moves masked weights at that step; 0 once they are removed."""
        begin, end = known_step(self.begin), known_step(self.end)
        return max(0, step - begin) / max(1, end - begin) if step < end else 0.0
