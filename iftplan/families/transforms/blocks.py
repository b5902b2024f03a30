"""Pairs of factors in blocks with a shuffle between them: what Monarch, block tensor-train and Kronecker layers are made of.

Inputs and outputs fall into equal blocks. The first factor maps each block of inputs to channels of its own, the shuffle
deals these out to all blocks of outputs in turn, and the second factor maps what each of them was dealt. If blocks do not
divide the channels, inputs are filled up with zeros and outputs are cut off; these multiply-accumulates count.

In a sum of Kronecker products all blocks of a factor share one matrix, so each weight is used once for every block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isqrt, prod

from iftplan.models.spec import LayerSpec


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of a structured matrix: equal matrices side by side.

    Attributes:
        path: where the module that replaces a layer has it.
        blocks: number of matrices.
        inputs: of one of them; a kernel counts with these, a transposed one with the outputs.
        outputs: of one of them.
        uses: how often each is used at one position.
    """

    path: str
    blocks: int
    inputs: int
    outputs: int
    uses: int = 1

    @property
    def weights(self) -> int:
        """Weights of all matrices."""
        return self.blocks * self.inputs * self.outputs


class FactorGrid(ABC):
    """Blocks that the inputs and outputs of a layer fall into, and what maps them onto each other."""

    __slots__ = ()

    @abstractmethod
    def factors(self, layer: LayerSpec, rank: int) -> tuple[Factor, ...]:
        """Factors in the place of a layer, in the order of their use.

        Args:
            layer: at its new width.
            rank: channels between the factors, in the steps of the grid.
        """

    def weights(self, layer: LayerSpec, rank: int) -> int:
        """Weights of all factors, padding included."""
        return sum(factor.weights for factor in self.factors(layer, rank))

    def macs(self, layer: LayerSpec, rank: int) -> int:
        """MACs of all factors at one position, padding included."""
        return sum(factor.weights * factor.uses for factor in self.factors(layer, rank))


@dataclass(frozen=True, slots=True)
class BlockGrid(FactorGrid):
    """Blocks that inputs and outputs fall into, and the channels between two factors at rank 1.

    Attributes:
        inputs: number of blocks of inputs.
        outputs: number of blocks of outputs.
        step: channels between the factors for each rank, a multiple of both.
        shared: whether all blocks of a factor have one matrix: a sum of Kronecker products, one for each rank.

    Example:
        >>> from iftplan.models.notation import parse_layer
        >>> layer = parse_layer("linear:768-3072")
        >>> BlockGrid(4, 4, 4).weights(layer, rank=2), BlockGrid(4, 4, 4).macs(layer, rank=2)
        (7680, 7680)
        >>> BlockGrid(24, 48, 1152, shared=True).weights(layer, rank=2)
        6144
    """

    inputs: int
    outputs: int
    step: int
    shared: bool = False

    def factors(self, layer: LayerSpec, rank: int) -> tuple[Factor, ...]:
        """U and V."""
        (inputs, outputs), between = block_sizes(layer, self.inputs, self.outputs), rank * self.step
        u, v = (inputs, between // self.inputs), (between // self.outputs, outputs)
        if self.shared:
            return Factor("U", 1, *u, self.inputs), Factor("V", 1, *v, self.outputs)
        return Factor("U", self.inputs, *u), Factor("V", self.outputs, *v)


def block_sizes(layer: LayerSpec, inputs: int, outputs: int) -> tuple[int, int]:
    """Rows and columns of one block, with the kernel where the layer has it.

    Args:
        layer: with channels.
        inputs: number of blocks of its inputs.
        outputs: number of blocks of its outputs.
    """
    assert layer.in_channels is not None and layer.out_channels is not None
    before, after = (1, prod(layer.kernel)) if layer.kind.transposed else (prod(layer.kernel), 1)
    return size(layer.in_channels, inputs) * before, size(layer.out_channels, outputs) * after


def size(channels: int, blocks: int) -> int:
    """Channels of one of so many equal blocks, the last one padded.

    Example:
        >>> size(10, 4)
        3
    """
    return -(-channels // blocks)


def monarch_grid(inputs: int, outputs: int) -> BlockGrid:
    """Four blocks on both sides, as in the released code of arXiv 2204.00595, or fewer where there are fewer channels."""
    blocks = min(4, inputs, outputs)
    return BlockGrid(blocks, blocks, blocks)


def root_grid(inputs: int, outputs: int) -> BlockGrid:
    """About as many blocks as each block has channels (arXiv 2406.06248, section 2).

    Example:
        >>> root_grid(768, 3072)
        BlockGrid(inputs=24, outputs=48, step=1152, shared=False)
    """
    before, after = _near_root(inputs), _near_root(outputs)
    return BlockGrid(before, after, before * after)


def kronecker_grid(inputs: int, outputs: int) -> BlockGrid:
    """The blocks of `root_grid`, all with one matrix: Kronecker products of two nearly square factors.

    Example:
        >>> kronecker_grid(768, 3072)
        BlockGrid(inputs=24, outputs=48, step=1152, shared=True)
    """
    return replace(root_grid(inputs, outputs), shared=True)


_REACH = 256
"""Numbers of blocks that are tried on either side of the root, for one that needs little padding."""


@lru_cache(maxsize=1024)
def _near_root(channels: int) -> int:
    """The number of blocks above half and up to twice the root that needs the least padding, the nearest to the root of these."""
    root = isqrt(channels)
    found = range(max(root // 2 + 1, root - _REACH), min(2 * root, root + _REACH) + 1)
    return min(found, key=lambda blocks: (blocks * size(channels, blocks), abs(blocks * blocks - channels)))
