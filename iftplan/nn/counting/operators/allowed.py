"""Costs of operators that a user vouches for, as entries of the operator table."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from iftplan.models.allowances import VouchedCost
from iftplan.nn.counting.operators.registry import Operator


def vouched_operators(costs: Mapping[str, VouchedCost]) -> dict[str, Operator]:
    """Qualified operator name → entry with the cost that the user gave."""
    return {name: _operator(name, cost) for name, cost in costs.items()}


def _operator(name: str, cost: VouchedCost) -> Operator:
    return Operator(name.rpartition("::")[2], lambda arguments, output: cost.macs(prod(output)), operands=())
