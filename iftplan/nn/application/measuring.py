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
    """Count the planned structure with every weight present, one table per engine.

    Args:
        plan: the plan.
        model: the dense model on the meta device, which is changed; built from the plan's source if None.
        engines: "meta", "fvcore", "flop_counter".
        second: an engine that counts it too if it can, see `measure_by`.
        operators: formulas for operators that would be unknown.

    Raises:
        InputError: the plan names Python of its own, and no model was given.
        StaleError: the model has other widths or layers than the plan.
        MeasureError: an engine could not run it.
    """
    structure = skeleton_(plan, dense_model(plan) if model is None else model)
    return measure_by(structure, plan.inputs, engines, second=second, operators=operators)
