"""Products of factors in blocks with shuffles between them, in the place of one layer: structured matrices.

Of Monarch and block tensor-train layers there are two factors, of butterflies one for each level. Each is a batched product,
or a convolution in groups, the first with the layer's kernel, stride and padding (in place of a transposed one, the last). In Kronecker products all blocks of a factor share its matrix, so these are an
ordinary linear layer or convolution, with blocks as a batch. There is no non-linearity inside: the product is one matrix.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own customary name
from torch import Tensor, nn

from iftplan.families.transforms.blocks import BlockGrid, FactorGrid, size
from iftplan.families.transforms.butterfly import ButterflyGrid
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


class BlockProduct(Member):
    """A product of factors in blocks in the place of a layer.

    Args:
        layer: the dense layer that is replaced, without groups.
        blocks: number of blocks of inputs.
    """

    def __init__(self, layer: nn.Module, blocks: int) -> None:
        super().__init__(layer)
        spatial = len(layer.kernel_size) if isinstance(layer, nn.modules.conv._ConvNd) else 0
        self.dimension = -1 - spatial  # of the channels, from the last
        self.padding_before = blocks * size(_inputs(layer), blocks) - _inputs(layer)
        self.cut = outputs(layer)

    def _padded(self, x: Tensor) -> Tensor:
        """Inputs with zeros behind them, so that blocks are equal."""
        if not self.padding_before:
            return x
        return F.pad(x, (*(0,) * 2 * (-1 - self.dimension), 0, self.padding_before))

    def _dealt(self, x: Tensor, blocks: int, of: int = -1) -> Tensor:
        """Channels of each block dealt out: the first of every block, then the second of every block, and so on.

        Where `of` is given, a block is that many smaller ones, and these are dealt out whole.
        """
        at = self.dimension
        if of < 0:
            return torch.unflatten(x, at, (blocks, -1)).transpose(at - 1, at).flatten(at - 1, at)
        return torch.unflatten(x, at, (blocks, of, -1)).transpose(at - 2, at - 1).flatten(at - 2, at)

    def _cut(self, out: Tensor) -> Tensor:
        """Outputs without those that only make blocks equal."""
        return out.narrow(self.dimension, 0, self.cut) if out.shape[self.dimension] > self.cut else out


class BlockPair(BlockProduct):
    """A structured matrix in the place of a layer: `V(shuffle(U(x)))` with block-diagonal U and V.

    Args:
        layer: the dense layer that is replaced, without groups.
        rank: how many times the channels that the grid has between the factors.
        grid: blocks of its inputs and outputs.
    """

    front = "U"

    def __init__(self, layer: nn.Module, rank: int, grid: BlockGrid) -> None:
        super().__init__(layer, grid.inputs)
        self.grid = grid
        self.U, self.V = _factors(layer, rank, grid)

    def masked_parts(self) -> tuple[str, ...]:
        """Paths of both factors."""
        return "U", "V"

    def forward(self, x: Tensor) -> Tensor:
        """Output of both factors, in the shape of the replaced layer's."""
        return self._cut(self.V(self._dealt(self.U(self._padded(x)), self.grid.inputs)))


class KroneckerSum(BlockPair):
    """A sum of Kronecker products in the place of a layer: `Σ_r (V_r ⊗ U_r)·x` in two steps, U in every block, then V.

    Args:
        layer: the dense layer that is replaced, without groups.
        rank: number of products.
        grid: blocks of its inputs and outputs, which share a matrix.
    """

    def __init__(self, layer: nn.Module, rank: int, grid: BlockGrid) -> None:
        super().__init__(layer, rank, grid)
        biased = getattr(layer, "bias", None) is not None
        self.shift = Shift(self.cut, -1 - self.dimension, **options_of(layer)) if biased else nn.Identity()

    def own_bias(self) -> nn.Parameter | None:
        """The bias of all outputs, added behind the products."""
        return self.shift._parameters.get("bias")

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the products with the input, in the shape of the replaced layer's output."""
        between = self._dealt(self._in_each(self.U, self._padded(x), self.grid.inputs), self.grid.inputs)
        out = self._dealt(self._in_each(self.V, between, self.grid.outputs), self.grid.outputs)
        shifted: Tensor = self.shift(self._cut(out))
        return shifted

    def _in_each(self, factor: nn.Module, x: Tensor, blocks: int) -> Tensor:
        """A factor's outputs in every block of channels, block after block."""
        at = self.dimension
        apart = torch.unflatten(x, at, (blocks, -1))
        out: Tensor = factor(apart.flatten(0, at - 1))
        return out.reshape(*apart.shape[:at], *out.shape[1:]).flatten(at - 1, at)


class ButterflyProduct(BlockProduct):
    """A product of butterfly factors in the place of a layer, the longest stride first.

    Each factor maps pairs of neighbouring blocks. A shuffle before it brings those together whose numbers differ in the
    highest bit, and moves that bit to the lowest place; after all factors every bit is in its place again.

    Args:
        layer: the dense layer that is replaced, without groups.
        rank: channels of a block between two factors.
        grid: its number of levels.
    """

    front = "factors.0"

    def __init__(self, layer: nn.Module, rank: int, grid: ButterflyGrid) -> None:
        super().__init__(layer, grid.blocks)
        self.pairs = grid.blocks // 2
        sizes = (size(_inputs(layer), grid.blocks), *(rank,) * (grid.levels - 1), size(self.cut, grid.blocks))
        last = grid.levels - 1
        carries = last if getattr(layer, "transposed", False) else 0
        biased = getattr(layer, "bias", None) is not None
        self.factors = nn.ModuleList(
            _blockwise(
                layer,
                self.pairs,
                grid.blocks * sizes[i],
                grid.blocks * sizes[i + 1],
                bias=biased and i == last,
                kernel=i == carries,
            )
            for i in range(grid.levels)
        )

    def masked_parts(self) -> tuple[str, ...]:
        """Paths of all factors."""
        return tuple(f"factors.{i}" for i in range(len(self.factors)))

    def own_bias(self) -> nn.Parameter | None:
        """The bias of the last factor."""
        return self.factors[-1]._parameters.get("bias")

    def forward(self, x: Tensor) -> Tensor:
        """Output of all factors, in the shape of the replaced layer's."""
        x = self._padded(x)
        for factor in self.factors:
            x = factor(self._dealt(x, 2, self.pairs))
        return self._cut(x)


class Shift(nn.Module):
    """A bias by itself, zero at first.

    Args:
        channels: how many.
        behind: dimensions behind that of the channels.
        **options: `device` and `dtype` of the bias.
    """

    def __init__(self, channels: int, behind: int, **options: Any) -> None:
        super().__init__()
        self.shape = (channels, *(1,) * behind)
        self.bias = nn.Parameter(torch.zeros(channels, **options))

    def forward(self, x: Tensor) -> Tensor:
        """Input plus the bias of its channels."""
        return x + self.bias.view(self.shape)


def product(layer: nn.Module, rank: int, grid: FactorGrid) -> BlockProduct:
    """The product of factors that a grid stands for, in the place of a layer.

    Args:
        layer: the dense layer that is replaced, without groups.
        rank: channels between the factors, in the steps of the grid.
        grid: blocks of its inputs and outputs.
    """
    if isinstance(grid, ButterflyGrid):
        return ButterflyProduct(layer, rank, grid)
    assert isinstance(grid, BlockGrid)
    return (KroneckerSum if grid.shared else BlockPair)(layer, rank, grid)


def _inputs(layer: nn.Module) -> int:
    found: Any = getattr(layer, "in_channels", None) or getattr(layer, "in_features", None)
    if found is None:
        assert isinstance(layer.weight, Tensor)
        found = layer.weight.shape[0]  # of transformers' Conv1D
    return int(found)


def _factors(layer: nn.Module, rank: int, grid: BlockGrid) -> tuple[nn.Module, nn.Module]:
    """U, in the groups of the inputs, and V, in those of the outputs; blocks are equal, so both may be padded.

    Where blocks share a matrix, each factor is that matrix, in one group.
    """
    bias = getattr(layer, "bias", None) is not None and not grid.shared
    first, second = (1, 1) if grid.shared else (grid.inputs, grid.outputs)
    before, after = (
        first * size(_inputs(layer), grid.inputs),
        second * size(outputs(layer), grid.outputs),
    )
    out, into = (rank * grid.step * first // grid.inputs, rank * grid.step * second // grid.outputs)
    transposed = bool(getattr(layer, "transposed", False))
    return (
        _blockwise(layer, None if grid.shared else first, before, out, bias=False, kernel=not transposed),
        _blockwise(layer, None if grid.shared else second, into, after, bias=bias, kernel=transposed),
    )


def _blockwise(
    layer: nn.Module, blocks: int | None, before: int, after: int, *, bias: bool, kernel: bool
) -> nn.Module:
    """A layer in blocks, with the kernel of the layer that is replaced or without; an ordinary layer where blocks are None."""
    options: Any = options_of(layer)
    if isinstance(layer, nn.modules.conv._ConvNd):
        if kernel:
            return convolution_like(layer, before, after, blocks or 1, bias)
        point: Any = getattr(nn, f"Conv{len(layer.kernel_size)}d")
        made: nn.Module = point(before, after, 1, groups=blocks or 1, bias=bias, **options)
        return made
    assert isinstance(layer, nn.Linear) or is_conv1d(layer)
    if blocks is None:
        return nn.Linear(before, after, bias, **options)
    return BlockLinear(blocks, before, after, bias, **options)
