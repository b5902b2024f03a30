"""Costs of training as tables, beside the dense model's."""

from __future__ import annotations

from fractions import Fraction

from iftplan.base.units import count, decimal
from iftplan.report.table import Table
from iftplan.runs.costs.memory import TrainingMemory
from iftplan.runs.costs.training_cost import TrainingCost


def cost_table(cost: TrainingCost) -> Table:
    """Cost of one sample in training, in MACs, beside the dense model's."""
    rows = (
        ("forward pass", cost.forward(), cost.dense),
        ("training step", cost.step(), cost.dense_step),
        ("step that looks at the dense gradient", cost.step(dense_gradient=True), cost.dense_step),
    )
    cells = tuple(
        (name, count(planned), count(dense), _ratio(planned, dense)) for name, planned, dense in rows
    )
    return Table(("of one sample", ">MACs", ">dense model's", ">ratio"), cells)


def memory_table(memory: TrainingMemory) -> Table:
    """Table of the bytes that training holds for a plan's weights, beside the dense model."""
    one = memory.element * memory.dense_weights
    rows = (
        ("weights", memory.parameter_bytes, one),
        ("gradients", memory.gradient_bytes, one),
        ("optimizer state", memory.optimizer_bytes, memory.states * one),
        ("masks", memory.mask_bytes, 0),
        ("together", memory.training_bytes, memory.dense_training_bytes),
        ("kept weights with their indices", memory.stored_bytes, one),
    )
    cells = tuple((name, count(held), count(dense), _ratio(held, dense)) for name, held, dense in rows)
    notes = ("of the weights that the plan lists; biases, norms and activations come on top",)
    return Table(("in training", ">bytes", ">dense model's", ">ratio"), cells, notes=notes)


def _ratio(planned: int, dense: int) -> str:
    return decimal(Fraction(planned, dense)) if dense else ""
