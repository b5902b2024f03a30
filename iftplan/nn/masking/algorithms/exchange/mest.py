"""MEST: drop by weight and gradient, grow at random (Yuan et al., arXiv 2110.14032)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Self

from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure, Unstructured
from iftplan.nn.masking.algorithms.base import Asked, Scores
from iftplan.nn.masking.algorithms.exchange.drop_grow import at_random
from iftplan.nn.masking.algorithms.exchange.exchange import DropGrow
from iftplan.nn.masking.layer import Change, Layer
from iftplan.nn.masks.top_k import excluding
from iftplan.runs.cautions import schedule_cautions


@dataclass(frozen=True, slots=True)
class MEST(DropGrow):
    """Memory-economic sparse training with elastic mutation (arXiv 2110.14032): drops by |θ| + λ·|g|, grows at random.

    Only the gradients of active weights are looked at, so that no step costs more than another.

    Attributes:
        importance: λ of the gradient; .01 unless given. The authors' code leaves the gradient out (0).
        soft: whether new weights come beside the old ones (the paper's soft memory bound): an update keeps the plan's
            count, then grows a part f_t of it more, and the next one decides which stay. The last arrives at the
            plan's count.

    Raises:
        InputError: a soft bound with redistribution.
    """

    regrow: bool = False
    importance: float = 0.01
    soft: bool = False

    name = "mest"
    scores = Scores.KEPT

    def __post_init__(self, interval: int | None, begin: float | None, end: float | None) -> None:
        super(MEST, self).__post_init__(interval, begin, end)
        if self.soft and self.redistribution != "none":
            raise InputError(
                "MEST with a soft bound grows weights beyond the plan's, which sets no MACs free to redistribute; take soft=False, or redistribution none."
            )

    @classmethod
    def of(cls, asked: Asked) -> Self:
        """Algorithm on the run's schedule, with the run's λ."""
        config, base = asked.config, super(MEST, cls).of(asked)
        return replace(base, importance=config.importance, soft=config.soft)

    def structure_refusal(self, structure: MaskStructure) -> str:
        """Sentence on structures that have no room beyond the plan's count."""
        if not self.soft or isinstance(structure, Unstructured):
            return super(MEST, self).structure_refusal(structure)
        return f"MEST with a soft bound keeps weights beyond the plan's count, and {structure} masks have no room for them; take MEST with soft=False, or plan unstructured masks."

    def cautions(self, steps: int, rate: Callable[[int], float] | None = None) -> list[str]:
        """Sentences about the schedule, which has to arrive under a soft bound.

        Args:
            steps: of the run.
            rate: the learning rate by step, where it is known in advance.
        """
        return schedule_cautions(self.updates, steps, rate=rate, arrives=self.soft)

    def due(self, step: int) -> bool:
        """Whether masks change at that step: every ΔT steps of the schedule, and at its end under a soft bound."""
        return self.updates.due(step) or (self.soft and step == self.updates.last)

    def growth(self, layer: Layer) -> Tensor:
        """Scores to grow by: uniform random numbers, (rows, units)."""
        return at_random(layer)

    def update(self, layers: Sequence[Layer], step: int) -> list[Change]:
        """New masks: drop by |θ| + λ·|g|, grow at random."""
        share = 0.0 if step >= self.updates.last else self.share(step)
        ranked = [replace(x, magnitude=self._importance(x)) for x in layers]
        if self.soft:
            return [self._beside(x, share) for x in ranked]
        return super(MEST, self).update(ranked, step)

    def _importance(self, layer: Layer) -> Tensor:
        if layer.gradient is None:
            return layer.magnitude
        return layer.magnitude + self.importance * layer.gradient

    def _beside(self, layer: Layer, share: float) -> Change:
        """The plan's count of the most important weights, and a part of it more, at random."""
        active = layer.counts(layer.mask)
        kept = layer.first(excluding(layer.magnitude, ~layer.mask), active.clamp(max=layer.target))
        closed = kept if self.regrow else kept | layer.mask
        free = layer.units - layer.counts(closed)
        more = free.clamp(max=floor(round(layer.target * share, 6)))
        grown = layer.first(excluding(self.growth(layer), closed), more)
        return Change(kept | grown, grown)
