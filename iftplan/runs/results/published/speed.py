"""Figure 3 of arXiv 2303.11525: speed-ups that were measured, against the MACs that sparse kernels save."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from iftplan.families.builtin import family_named
from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Scope
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from iftplan.runs.costs.training_cost import TrainingCost


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """Published speed-up of a Sparse Wide network.

    Attributes:
        what: network, task and sparsity.
        where: hardware or runtime.
        speed_up: over the same network without sparse kernels.
        masked_dense: MACs of that network, all weights computed, over the dense model's.
    """

    what: str
    where: str
    speed_up: float
    masked_dense: Fraction


_SPARSITY = Fraction(9, 10)
_MEASURED = (
    ("ResNet-18, inference at 0.9", "zoo:resnet18", Scope.LAYERS, "DeepSparse, AVX-512", 5.2),
    ("GPT-3 1.3B, training step at 0.9", "zoo:gpt3-1.3b", Scope.MATRICES, "Cerebras CS-2", 3.8),
)


def speed_rows(read: Callable[[str], ModelSpec]) -> tuple[SpeedRow, ...]:
    """Published speed-ups, with what a dense computation of the same networks costs.

    Args:
        read: a source to its spec, with widths.
    """
    found = []
    for what, model, scope, where, speed_up in _MEASURED:
        wide = plan(read(model), Policy(family=family_named("wide"), sparsity=_SPARSITY, scope=scope))
        cost = TrainingCost.of(wide)
        found.append(SpeedRow(what, where, speed_up, Fraction(cost.opened, cost.dense)))
    return tuple(found)
