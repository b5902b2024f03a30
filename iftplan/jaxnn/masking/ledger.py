"""Ledger of a run's training MACs, exact, from the plan's costs and from the masks of each step."""

from __future__ import annotations

from typing import Any

import numpy as np

from iftplan.base.arguments import check_arguments
from iftplan.jaxnn.masking.algorithms import Algorithm, Static, for_training
from iftplan.jaxnn.masking.state import MaskedState
from iftplan.jaxnn.masking.views import views_of
from iftplan.jaxnn.sources.models import leaf_names
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.settings import InputGradient


class TrainingLedger:
    """Ledger of training MACs, by the rules of `iftplan train`: a step counts with the masks that it computed with.

    Args:
        plan: gives the cost of each layer.
        state: of the masked optimizer, as training begins or goes on.
        algorithm: that it was made with.
        input_gradient: what the gradients of inputs cost (`iftplan.runs.costs.training_cost`).
        macs: training MACs before; 0 at the start.
        dense_macs: those of the dense model on the same samples.

    Attributes:
        macs: training MACs so far.
        dense_macs: training MACs of the dense model on the same samples.
    """

    @check_arguments
    def __init__(
        self,
        plan: Plan,
        state: MaskedState,
        algorithm: Algorithm | str = Static(),  # noqa: B008  (a frozen value)
        *,
        input_gradient: InputGradient = "structure",
        macs: int = 0,
        dense_macs: int = 0,
    ) -> None:
        shapes = {name: tuple(mask.shape) for name, mask in leaf_names(state.masks).items()}
        self._layers = [view.layer for view in views_of(plan, shapes)]
        self._cost = TrainingCost.of(plan, input_gradient)
        self._algorithm = for_training(
            algorithm, 10**9
        )  # only what it looks at is asked, and no step is beyond that
        self._kept, self._changes = _seen(state)
        self.macs = macs
        self.dense_macs = dense_macs

    @property
    def nnz(self) -> dict[str, int]:
        """Masked weights that are kept now, by planned layer."""
        counts = dict.fromkeys(self._layers, 0)
        for layer, kept in zip(self._layers, self._kept, strict=True):
            counts[layer] += kept
        return counts

    @property
    def forward_macs(self) -> int:
        """MACs of one sample's forward pass with the present masks."""
        return self._cost.forward(self.nnz)

    def step(self, state: MaskedState, samples: int) -> None:
        """Add the cost of a step with this many samples.

        Args:
            state: after the step.
            samples: of its batch.
        """
        kept, changes = _seen(state)
        looked = self._algorithm.straight or (self._algorithm.looks and changes > self._changes)
        self.macs += samples * self._cost.step(self.nnz, dense_gradient=looked)
        self.dense_macs += samples * self._cost.dense_step
        self._kept, self._changes = kept, changes


def _seen(state: Any) -> tuple[list[int], int]:
    return np.asarray(state.kept).tolist(), int(state.changes)
