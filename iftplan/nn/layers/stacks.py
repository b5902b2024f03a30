"""Weights of three dimensions that stack the experts of a mixture: their layout, and one expert as a linear layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from iftplan.base.errors import StaleError
from iftplan.plans.plan import PlannedLayer

_NOTED = "_stacked_weights"  # a module's parameters that stack matrices → their Stack


@dataclass(frozen=True, slots=True)
class Stack:
    """Layout of a weight of three dimensions that stacks the experts of a mixture along the first.

    Attributes:
        experts: how many there are; the masks of all keep equally many weights.
        inputs_first: each is (inputs, outputs); else (outputs, inputs), as in `nn.Linear`.
        known: whether that is known; the matrices of a module that does not say may be square.
    """

    experts: int
    inputs_first: bool = False
    known: bool = True


class StackedLinear(nn.Module):
    """A stack of linear layers of one shape, of which every row meets one.

    Args:
        experts: matrices in the stack.
        in_features: inputs of each.
        out_features: outputs of each.
        bias: whether each has one, zero at first.
        **options: `device` and `dtype` of the parameters.

    Attributes:
        weight: (experts, outputs, inputs).
        bias: (experts, outputs), or None.
    """

    def __init__(
        self, experts: int, in_features: int, out_features: int, bias: bool = True, **options: Any
    ) -> None:
        super().__init__()
        self.experts, self.in_features, self.out_features = experts, in_features, out_features
        self.weight = nn.Parameter(torch.empty(experts, out_features, in_features, **options))
        self.bias = nn.Parameter(torch.zeros(experts, out_features, **options)) if bias else None
        if not self.weight.is_meta:
            nn.init.uniform_(self.weight, -1 / sqrt(in_features), 1 / sqrt(in_features))

    def forward(self, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        """Products of the rows with the matrices of their experts, (rows, outputs).

        Args:
            rows: (rows, inputs), those of the first expert first.
            owners: the expert of each row.
            ends: where the rows of each expert end.
        """
        out = grouped_product(rows, self.weight.mT, ends)
        return out if self.bias is None else out + self.bias[owners]


def grouped_product(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """`(S, K) · (E, K, N) → (S, N)`: each group of rows times its own matrix.

    torch's kernel asks for rows and matrices whose strides are multiples of 16 bytes; others are multiplied one by one.

    Args:
        rows: (S, K), those of the first matrix first; computed in the matrices' dtype.
        matrices: (E, K, N).
        ends: (E,), where the rows of each matrix end.
    """
    rows = rows.to(matrices.dtype)
    if rows.is_meta or all(size * rows.element_size() % 16 == 0 for size in matrices.shape[1:]):
        product: Tensor = F.grouped_mm(rows, matrices, offs=ends)
        return product
    counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
    parts = torch.split(rows, counts)
    return torch.cat([part @ matrix for part, matrix in zip(parts, matrices, strict=True)])


def stack_of(module: nn.Module, parameter_name: str) -> Stack | None:
    """Layout of a module's parameter that holds several matrices, if it is known; None for a single one."""
    noted: Mapping[str, Stack] = module.__dict__.get(_NOTED, {})
    if isinstance(module, StackedLinear) and parameter_name == "weight":
        return Stack(module.experts)
    return noted.get(parameter_name)


def note_stack_(module: nn.Module, parameter_name: str, stack: Stack) -> None:
    """Have `stack_of` find it from now on, also in copies of the module.

    Args:
        module: the owner of the parameter.
        parameter_name: such as "gate_up_proj".
        stack: the layout of its matrices.
    """
    module.__dict__.setdefault(_NOTED, {})[parameter_name] = stack


def planned_stack(layer: PlannedLayer, module: nn.Module, weight: Tensor) -> Stack | None:
    """Layout of a planned layer's experts in its weight; None for a layer without experts.

    Args:
        layer: of a plan.
        module: the owner of the weight.
        weight: at the plan's widths.

    Raises:
        StaleError: the weight is no stack of so many matrices.
    """
    if layer.experts == 1:
        return None
    if weight.dim() != 3 or weight.shape[0] != layer.experts:
        raise StaleError(
            f"the weight of {layer.name} has shape {tuple(weight.shape)} where {layer.experts} experts were planned; make the plan again."
        )
    if isinstance(module, StackedLinear):
        return Stack(layer.experts)
    assert layer.after is not None
    inputs, outputs = layer.after.in_channels, layer.after.out_channels
    if inputs != outputs:
        return Stack(layer.experts, tuple(weight.shape[1:]) != (outputs, inputs))
    transposed = getattr(module, "is_transposed", None)  # what transformers' experts say of themselves
    return Stack(layer.experts, bool(transposed), transposed is not None)
