"""Costs of operators that a user vouches for, as entries of the operator table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from iftplan.base.errors import InputError
from iftplan.models.allowances import VouchedCost
from iftplan.nn.counting.operators.registry import Operator


def vouched_operators(costs: Mapping[str, VouchedCost]) -> dict[str, Operator]:
    """Qualified operator name → entry with the cost that the user gave."""
    return {name: _operator(name, cost) for name, cost in costs.items()}


def _operator(name: str, cost: VouchedCost) -> Operator:
    def macs(arguments: Sequence[Any], output: Any) -> int:
        shape = output if isinstance(output, list | tuple) else None
        if shape is None and cost.per_output:
            raise InputError(
                f"`allow`: {name} returns no tensor, so it has no output elements to count {cost.per_output}*out with; give its MACs per call, as in {name}=0."
            )
        return cost.macs(prod(shape or ()))

    return Operator(name.rpartition("::")[2], macs, operands=())
