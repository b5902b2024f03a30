"""Pairs of block-diagonal factors with a shuffle between them, in the place of one layer: Monarch and block tensor-train.

A linear layer becomes two batched products, a convolution two convolutions in groups, the first with its kernel, stride
and padding (a transposed one the second). There is no non-linearity inside: the pair is a structured matrix.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from iftplan.families.transforms.blocks import BlockGrid, size
from iftplan.nn.layers.branches import Member, convolution_like, is_conv1d, options_of, outputs


class BlockLinear(nn.Module):
    """A linear layer with a block-diagonal weight: equal blocks of inputs, each with its own matrix.

    Args:
        blocks: number of blocks.
        in_features: inputs of all blocks together, a multiple of their number.
        out_features: outputs of all blocks together, a multiple of their number.
        bias: whether there is one, zero at first.
        **options: `device` and `dtype` of the parameters.

    Attributes:
        weight: (blocks, outputs of a block, inputs of a block).
        bias: (outputs,), or None.
    """

    def __init__(
        self, blocks: int, in_features: int, out_features: int, bias: bool = True, **options: Any
    ) -> None:
        super().__init__()
        self.blocks, self.in_features, self.out_features = blocks, in_features, out_features
        inputs, outputs = in_features // blocks, out_features // blocks
        self.weight = nn.Parameter(torch.empty(blocks, outputs, inputs, **options))
        self.bias = nn.Parameter(torch.zeros(out_features, **options)) if bias else None
        if not self.weight.is_meta:
            nn.init.uniform_(self.weight, -1 / sqrt(inputs), 1 / sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        """Products of the blocks, (…, outputs)."""
        rows = x.reshape(-1, self.blocks, self.in_features // self.blocks).transpose(0, 1)
        out = torch.bmm(rows, self.weight.mT).transpose(0, 1).reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.in_features}, {self.out_features}, blocks={self.blocks}, bias={self.bias is not None}"


class BlockPair(Member):
    """A structured matrix in the place of a layer: `V(shuffle(U(x)))` with block-diagonal U and V.

    Args:
        layer: the dense layer that is replaced, without groups.
        rank: how many times the channels that the grid has between the factors.
        grid: blocks of its inputs and outputs.
    """

    front = "U"

    def __init__(self, layer: nn.Module, rank: int, grid: BlockGrid) -> None:
        super().__init__(layer)
        self.grid = grid
        spatial = len(layer.kernel_size) if isinstance(layer, nn.modules.conv._ConvNd) else 0
        self.dimension = -1 - spatial  # of the channels, from the last
        self.padding_before = grid.inputs * size(_inputs(layer), grid.inputs) - _inputs(layer)
        self.cut = outputs(layer)
        self.U, self.V = _factors(layer, rank, grid)

    def masked_parts(self) -> tuple[str, ...]:
        """Paths of both factors."""
        return "U", "V"

    def forward(self, x: Tensor) -> Tensor:
        """Output of both factors, in the shape of the replaced layer's."""
        at = self.dimension
        if self.padding_before:
            x = F.pad(x, (*(0,) * 2 * (-1 - at), 0, self.padding_before))
        dealt = self.U(x).unflatten(at, (self.grid.inputs, -1)).transpose(at - 1, at).flatten(at - 1, at)
        out: Tensor = self.V(dealt)
        return out.narrow(self.dimension, 0, self.cut) if out.shape[self.dimension] > self.cut else out


def _inputs(layer: nn.Module) -> int:
    found: Any = getattr(layer, "in_channels", None) or getattr(layer, "in_features", None)
    if found is None:
        assert isinstance(layer.weight, Tensor)
        found = layer.weight.shape[0]  # of transformers' Conv1D
    return int(found)


def _factors(layer: nn.Module, rank: int, grid: BlockGrid) -> tuple[nn.Module, nn.Module]:
    """U, in the groups of the inputs, and V, in those of the outputs; blocks are equal, so both may be padded."""
    options: Any = options_of(layer)
    bias = getattr(layer, "bias", None) is not None
    before = grid.inputs * size(_inputs(layer), grid.inputs)
    after = grid.outputs * size(outputs(layer), grid.outputs)
    between = grid.step * rank
    if not isinstance(layer, nn.modules.conv._ConvNd):
        assert isinstance(layer, nn.Linear) or is_conv1d(layer)
        return (
            BlockLinear(grid.inputs, before, between, False, **options),
            BlockLinear(grid.outputs, between, after, bias, **options),
        )
    point: Any = getattr(nn, f"Conv{len(layer.kernel_size)}d")
    if layer.transposed:
        down = point(before, between, 1, groups=grid.inputs, bias=False, **options)
        return down, convolution_like(layer, between, after, grid.outputs, bias)
    up = point(between, after, 1, groups=grid.outputs, bias=bias, **options)
    return convolution_like(layer, before, between, grid.inputs, False), up
