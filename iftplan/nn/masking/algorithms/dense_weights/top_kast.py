"""Top-KAST: compute with the largest weights, train some more (Jayakumar et al., arXiv 2106.03517)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from iftplan.base.errors import InputError
from iftplan.base.units import count
from iftplan.nn.masking.algorithms.base import Asked
from iftplan.nn.masking.algorithms.dense_weights.ste import StraightThrough, check_refresh


@dataclass(frozen=True, slots=True)
class TopKAST(StraightThrough):
    """Top-K always sparse training (arXiv 2106.03517): forward θ⊙m with the largest |θ|; the next largest learn too.

    A is what the mask keeps, a part D of a weight, and B has the largest of all others beside it, a part M. Gradients
    are g on B, and exploration is regularised (section 2.3): λθ is added on A, and λθ/D on B without A. What is
    outside of B stays as it is, with no momentum.

    With M = 1 - D and λ = 0 it is `STE`. The penalty takes the place of weight decay; an optimizer's comes on top.

    Attributes:
        margin: M, a part of each weight.
        pull: λ of the penalty.
        refresh: steps that one choice of A and B lasts.

    Raises:
        InputError: a margin outside of [0, 1].
    """

    margin: float = 0.3
    pull: float = 1e-4
    refresh: int = 100

    name = "top-kast"

    def __post_init__(self) -> None:
        check_refresh(self.refresh)
        if not 0 <= self.margin <= 1:
            raise InputError(f"a margin is a part of all weights, from 0 to 1, not {self.margin!r}.")

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm with the run's margin, and the run's λ and ΔT or their defaults."""
        config, default = asked.config, cls()
        pull = default.pull if config.pull is None else config.pull
        return cls(config.margin, pull, config.refresh or default.refresh)

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentence about a run that ends before masks are chosen a second time.

        Args:
            steps: of the run.
            rate: the learning rate by step, which is not looked at.
        """
        if steps > self.refresh:
            return []
        return [
            f"Top-KAST chooses masks every {count(self.refresh)} steps, and the run has {count(steps)}, so its masks stay those of "
            "the start. Choose them more often (`refresh`), or train for longer."
        ]
