"""Kept weights in fewer bits: bfloat16, or whole numbers in eight bits with a scale for each output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

ValueType: TypeAlias = Literal["bfloat16", "int8"]
"""Types that kept weights are rounded to for inference; sums are float32's."""


@dataclass(frozen=True, slots=True, eq=False)
class RoundedValues:
    """Weights that were rounded.

    Attributes:
        kept: in their type.
        scales: what whole numbers are multiplied with, one for each output; None for bfloat16.
        values: the weights that they stand for, in float32.
    """

    kept: Tensor
    scales: Tensor | None
    values: Tensor


def rounded(values: Tensor, kind: ValueType, outputs: Tensor, count: int) -> RoundedValues:
    """Weights rounded to a type.

    Args:
        values: flat.
        kind: of the answer.
        outputs: of each value.
        count: of all outputs.
    """
    if kind == "bfloat16":
        kept = values.to(torch.bfloat16)
        return RoundedValues(kept, None, kept.float())
    kept, scales = quantized(values, outputs, count)
    return RoundedValues(kept, scales, kept.float() * scales[outputs])


def quantized(values: Tensor, outputs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values as whole numbers from -127 to 127, and the scale of each output: its largest magnitude over 127.

    Args:
        values: flat.
        outputs: of each value.
        count: of all outputs.
    """
    values = values.float()
    scales = torch.zeros(count).scatter_reduce_(0, outputs, values.abs(), "amax") / 127
    each = scales[outputs]
    return torch.where(each > 0, values / each, 0).round_().to(torch.int8), scales
