"""What a run has spent: training MACs, exact, from the plan's costs and what each step really did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from iftplan.nn.masking.algorithm import Scores
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masks import masked_names
from iftplan.plans import Plan
from iftplan.training_cost import TrainingCost


class Spending:
    """A ledger that is told of every step.

    Args:
        plan: whose costs count.
        network: the plan made real, or the dense model.
        masks: None for the dense control, which costs what the plan's dense model costs.

    Attributes:
        macs: spent so far.
        dense_macs: what the dense model had spent on the same samples.
    """

    def __init__(self, plan: Plan, network: nn.Module, masks: Masking | None) -> None:
        self._cost = TrainingCost.of(plan)
        self._masks = masks
        self._weights = weights_of_layers(plan, network) if masks is not None else {}
        self._updates = 0
        self._nnz: Mapping[str, int] = {}
        self.macs = 0
        self.dense_macs = 0
        self._count()

    @property
    def nnz(self) -> Mapping[str, int]:
        """Weights kept now, by layer."""
        return self._nnz

    def step(self, samples: int) -> int:
        """Enter a step that has been taken: an update in it looked at the gradient, and counts from the next on.

        Returns:
            What the step cost.
        """
        dense = samples * self._cost.dense_step
        spent = dense if self._masks is None else samples * self._sparse_step(self._masks)
        self.macs += spent
        self.dense_macs += dense
        return spent

    def _sparse_step(self, masks: Masking) -> int:
        updated = masks.exploration.updates != self._updates
        looked = updated and masks.algorithm.scores is Scores.GRADIENT
        cost = self._cost.step(self._nnz, dense_gradient=looked)
        if updated:
            self._count()
        return cost

    def _count(self) -> None:
        if self._masks is None:
            return
        masks = self._masks.masks()
        self._updates = self._masks.exploration.updates
        self._nnz = {
            layer: sum(int(masks[name].count_nonzero()) for name in names)
            for layer, names in self._weights.items()
        }

    def forward_macs(self) -> int:
        """One sample's forward pass as things are."""
        return self._cost.dense if self._masks is None else self._cost.forward(self._nnz)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"macs": self.macs, "dense_macs": self.dense_macs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; load the masks first."""
        self.macs, self.dense_macs = int(state["macs"]), int(state["dense_macs"])
        self._count()


def weights_of_layers(plan: Plan, network: nn.Module) -> dict[str, tuple[str, ...]]:
    """Planned layer → its masked weights in the applied network: one, or those of its branches and factors."""
    modules = dict(network.named_modules(remove_duplicate=False))
    return {
        layer.name: masked_names(modules.get(layer.name), layer) for layer in plan.layers if layer.maskable
    }
