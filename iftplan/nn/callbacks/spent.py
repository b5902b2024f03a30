"""FLOPs of a training under other libraries' trainers: by the masks of every step, and of the dense model."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masking.step_masks import step_macs, weights_by_layer
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost

MASKED, DENSE = "masked_flos", "dense_flos"
"""Names in logs: what the masks asked for, and what the plan's dense model would have cost on the same data."""


class Spent:
    """FLOPs that one process has spent, two for each MAC; told of every batch, and added up by optimizer steps.

    Args:
        plan: that was applied; its input says what a batch costs.
        model: that is trained, or what holds it.

    Attributes:
        masked: FLOPs by the masks.
        dense: FLOPs of the plan's dense model on the same data.
    """

    def __init__(self, plan: Plan, model: nn.Module) -> None:
        self._cost, self._groups = TrainingCost.of(plan), _weights(plan, model)
        self._shape = plan.inputs[0].shape if plan.inputs else ()
        self._waiting = Fraction(0)
        self.masked = 0
        self.dense = 0

    def batch(self, given: object) -> None:
        """Note a batch that was computed.

        Raises:
            InputError: its samples are not those that the plan counts.
        """
        shapes = [tuple(tensor.shape) for tensor in _tensors(given)]
        one = self._shape[1:]
        found = next((shape[0] for shape in shapes if shape and shape[1:] == one), None)
        if found is None:
            raise InputError(
                f"the plan counts inputs of {'x'.join(map(str, self._shape))}, and a batch has none of that size, only "
                f"{', '.join('x'.join(map(str, shape)) for shape in shapes) or 'no tensors'}. Make the plan for the "
                "size that is trained, or leave `plan` out."
            )
        self._waiting += Fraction(found, self._shape[0])

    def step(self, masks: Masking) -> int:
        """FLOPs by the masks of a step that was taken, with all batches since the last."""
        probes = step_macs(self._cost, self._groups, masks.taken, 0)
        each = step_macs(self._cost, self._groups, masks.taken, 1) - probes
        spent, dense = (2 * macs * self._waiting for macs in (each, self._cost.dense_step))
        self._waiting = Fraction(0)
        self.masked += int(spent) + 2 * probes
        self.dense += int(dense)
        return int(spent) + 2 * probes

    def totals(self, processes: int = 1) -> dict[str, float]:
        """Both totals by their names in logs, for so many processes alike."""
        return {MASKED: float(self.masked * processes), DENSE: float(self.dense * processes)}

    def state_dict(self) -> dict[str, int]:
        """Totals for a checkpoint."""
        return {"masked": self.masked, "dense": self.dense}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from the totals of a checkpoint; from nothing where it has none."""
        self.masked, self.dense = int(state.get("masked", 0)), int(state.get("dense", 0))


def _weights(plan: Plan, model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Planned layer → its masked parameters, as the model that holds the planned one names them.

    Raises:
        InputError: no part of the model is what the plan was applied to.
    """
    masked = [layer.name for layer in plan.layers if layer.maskable and layer.experts == 1]
    known = {weight.name for weight in masked_weights(model)}
    for path, module in model.named_modules():
        names = {
            *dict(module.named_modules(remove_duplicate=False)),
            *dict(module.named_parameters(remove_duplicate=False)),
        }
        if all(layer in names for layer in masked):
            found = weights_by_layer(plan, module)
            prefix = f"{path}." if path else ""
            groups = {layer: tuple(prefix + name for name in own) for layer, own in found.items()}
            if all(name in known for own in groups.values() for name in own):
                return groups
    raise InputError(
        "the plan was not applied to the model that is trained. Give the plan of its masks, or none."
    )


def _tensors(given: object) -> list[torch.Tensor]:
    """Tensors of a batch, in their order."""
    if isinstance(given, torch.Tensor):
        return [given]
    parts: list[Any] = []
    if isinstance(given, Mapping):
        parts = list(given.values())
    elif isinstance(given, list | tuple):
        parts = list(given)
    return [tensor for part in parts for tensor in _tensors(part)]
