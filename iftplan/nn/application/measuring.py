"""Measure a plan: build its structure on the meta device and count it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.models.counting import CountTable
from iftplan.nn.application.dense_model import dense_model
from iftplan.nn.application.structure import skeleton_
from iftplan.nn.counting.cross_check import measure_by
from iftplan.nn.counting.operators.registry import Operator
from iftplan.plans.plan import Plan


@check_arguments
def measure_plan(
    plan: Plan,
    model: nn.Module | None = None,
    *,
    engines: Sequence[str] = ("meta",),
    second: str = "",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> tuple[CountTable, ...]:
    """Tables of the MACs of the planned structure with all its weights, one per engine.

    Args:
        plan: the plan.
        model: the dense model on the meta device, which is changed; built from the plan's source if None.
        engines: "meta", "fvcore", "flop_counter".
        second: a second engine, which counts where it can and must agree; "" for none.
        operators: formulas for operators that have none, by qualified name.

    Raises:
        InputError: the plan's model is Python code, which is only run if you give the model.
        StaleError: the plan was made for a model with other widths or layers.
        MeasureError: an engine could not run it.
    """
    structure = skeleton_(plan, dense_model(plan) if model is None else model)
    return measure_by(structure, plan.inputs, engines, second=second, operators=operators)
