"""Ledger of a run's training MACs, exact, from the plan's costs and from the masks of each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from iftplan.nn.masking.algorithms.sara import SaRA
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masking.step_masks import layer_counts, step_macs, weights_by_layer, whole_weights
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.settings import InputGradient


class Spending:
    """Ledger of a run's training MACs, updated at every step.

    Args:
        plan: gives the cost of each layer.
        network: of the plan, or the dense model.
        masks: None for the dense control, which costs what the plan's dense model costs.
        opened: whether there are no masks because the network trains every weight that they would cover.
        input_gradient: what the gradients of inputs cost (`iftplan.runs.costs.training_cost`).
        teacher_macs: MACs of a teacher's forward pass over one sample, which every sample of a step takes; 0 for none.
        adapter_macs: MACs of the adapters' forward pass over one sample; 0 for none.
        narrow: MACs of one sample's forward pass of a dense control that is not at the widths of the plan's dense model;
            None for one that is.

    Attributes:
        macs: training MACs so far.
        dense_macs: training MACs of the dense model on the same samples.
        activation_bytes: what the forward pass of a part of a batch keeps for its backward pass; 0 before the first.
        narrow: as given; it changes when the network grows.
    """

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        masks: Masking | None,
        *,
        opened: bool = False,
        input_gradient: InputGradient = "structure",
        teacher_macs: int = 0,
        adapter_macs: int = 0,
        narrow: int | None = None,
    ) -> None:
        self._cost = TrainingCost.of(plan, input_gradient)
        self._masks = masks
        self._opened = opened
        self._teacher = teacher_macs
        self._adapters = adapter_macs
        self.narrow = narrow
        self._groups = weights_by_layer(plan, network) if masks is not None else {}
        self._whole = whole_weights(network, self._groups)
        self.macs = 0
        self.dense_macs = 0
        self.activation_bytes = 0

    @property
    def nnz(self) -> Mapping[str, int]:
        """Masked weights that are kept now, by planned layer; none in the dense control."""
        return (
            layer_counts(self._groups, {**self._whole, **self._masks.nnz}) if self._masks is not None else {}
        )

    @property
    def forward_macs(self) -> int:
        """MACs of one sample's forward pass with the present masks."""
        if self.narrow is not None:
            return self.narrow
        if self._masks is None:
            return self._cost.opened if self._opened else self._cost.dense
        return self._cost.forward(self.nnz) + self._adapters

    @property
    def is_thinned(self) -> bool:
        """Whether masks, if there are any, keep no more weights than the plan's, or cost no more where they trade weights by MACs."""
        if self._masks is None or isinstance(self._masks.algorithm, SaRA):  # which removes nothing
            return True
        none = dict.fromkeys(self._masks.nnz, 0)
        dropped = layer_counts(self._groups, {**self._whole, **none})  # what stays whole was to be so
        kept, cost = self.nnz, self._cost
        planned = {name: max(count, dropped.get(name, 0)) for name, count in cost.nnz.items()}
        return sum(kept.values()) <= sum(planned.values()) or cost.forward(kept) <= cost.forward(planned)

    @property
    def executed_step(self) -> int:
        """MACs of one sample's step in dense operators, which compute zeros under masks too, with adapters and a teacher."""
        beside = self._teacher + 3 * self._adapters
        return (
            3 * (self._cost.opened if self._masks is not None or self._opened else self._cost.dense) + beside
        )

    def step(self, samples: int) -> None:
        """Add the cost of a step with this many samples, after the step."""
        dense = self._cost.dense_step
        unmasked = 3 * self.forward_macs * samples if self._masks is None else 0
        self.macs += unmasked if self._masks is None else self._taken(self._masks, samples)
        self.macs += samples * (self._teacher + 3 * self._adapters)
        self.dense_macs += samples * dense

    def measure(self, samples: int) -> None:
        """Add the cost of forward passes beside the training steps, with the present masks."""
        self.macs += samples * self.forward_macs

    def grow(self, macs: int, narrow: int) -> None:
        """Go on at other widths.

        Args:
            macs: MACs of the growth step.
            narrow: MACs of one sample's forward pass from here on.
        """
        self.macs += macs
        self.narrow = narrow
        self.activation_bytes = 0  # measured anew

    def _taken(self, masks: Masking, samples: int) -> int:
        return step_macs(self._cost, self._groups, masks.taken.beside(self._whole), samples)

    def state_dict(self) -> dict[str, Any]:
        """Totals for a checkpoint."""
        return {"macs": self.macs, "dense_macs": self.dense_macs, "activation_bytes": self.activation_bytes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the totals of a checkpoint."""
        self.macs, self.dense_macs = int(state["macs"]), int(state["dense_macs"])
        self.activation_bytes = int(state.get("activation_bytes", 0))
