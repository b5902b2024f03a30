"""Exploration of masks in training: ITOP rate, degree of constraint, churn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from iftplan.nn.masks.shards import true_counts


@dataclass(frozen=True, slots=True, eq=False)
class Exploration:
    """The union and the intersection of all masks so far, by weight.

    Attributes:
        ever: weights that were active at some time.
        always: weights that were active at all times.
        churn: the part of the active weights that the last update brought in; None before the first.
        updates: how many updates there were.
        itop_rate: ITOP rate |∪ masks|/N over all masked weights, a fraction of 1 (arXiv 2102.02887).
        degree_of_constraint: |∩ masks|/N over all masked weights, a fraction of 1.
    """

    ever: Mapping[str, Tensor]
    always: Mapping[str, Tensor]
    churn: float | None = None
    updates: int = 0
    itop_rate: float = field(init=False)
    degree_of_constraint: float = field(init=False)

    def __post_init__(self) -> None:
        # at once, where all processes are: whoever asks later may be one of those that share the masks
        object.__setattr__(self, "itop_rate", _share(self.ever))
        object.__setattr__(self, "degree_of_constraint", _share(self.always))

    @classmethod
    def of(cls, masks: Mapping[str, Tensor]) -> Self:
        """Exploration that has seen the first masks alone."""
        return cls({k: m.clone() for k, m in masks.items()}, {k: m.clone() for k, m in masks.items()})

    def after(self, before: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Self:
        """Exploration that has seen one update more."""
        active = sum(true_counts(list(masks.values())))
        came = sum(true_counts([m & ~before[k] for k, m in masks.items()]))
        return type(self)(
            {k: m.to(masks[k].device) | masks[k] for k, m in self.ever.items()},
            {k: m.to(masks[k].device) & masks[k] for k, m in self.always.items()},
            came / active if active else 0.0,
            self.updates + 1,
        )


def _share(masks: Mapping[str, Tensor]) -> float:
    total = sum(m.numel() for m in masks.values())
    return sum(true_counts(list(masks.values()))) / total if total else 0.0
