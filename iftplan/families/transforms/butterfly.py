"""Butterfly Wide: as wide as Sparse Wide, every layer a product of butterfly factors (Dao et al., arXiv 1903.05895).

    2·r·k·(m + n) + 64·r**2 = m·n        k = d**(-1/2) as in Sparse Wide

Inputs and outputs fall into n = 16 blocks, and log2(n) = 4 factors lead from every block to every other: each mixes the blocks
in pairs, at a stride that halves from factor to factor. Between them every block has r channels (the blocks of arXiv
2112.00029, section 3, and the free inner width of arXiv 2012.14966, section 2), so the factors inside cost 2·16·r·r MACs each and
the two at the ends 2·r for each channel outside. The equation is quadratic in r. Nothing is masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from iftplan.families.transforms.blocks import Factor, FactorGrid, block_sizes
from iftplan.families.transforms.definition import Definition
from iftplan.models.spec import LayerSpec

LEVELS: Final = 4
"""Factors of a layer with enough channels: log2 of its blocks."""


@dataclass(frozen=True, slots=True)
class ButterflyGrid(FactorGrid):
    """Blocks of a product of butterfly factors.

    Attributes:
        levels: number of factors, at least two; there are 2**levels blocks.

    Example:
        >>> from iftplan.models.notation import parse_layer
        >>> ButterflyGrid(4).macs(parse_layer("linear:768-3072"), rank=10)
        83200
    """

    levels: int

    @property
    def blocks(self) -> int:
        """Number of blocks of inputs, of outputs, and between two factors."""
        return 1 << self.levels

    def factors(self, layer: LayerSpec, rank: int) -> tuple[Factor, ...]:
        """One for each level, of matrices that map two blocks onto two."""
        inputs, outputs = block_sizes(layer, self.blocks, self.blocks)
        widths = (inputs, *(rank,) * (self.levels - 1), outputs)
        return tuple(
            Factor(f"factors.{i}", self.blocks // 2, 2 * widths[i], 2 * widths[i + 1])
            for i in range(self.levels)
        )


def butterfly_grid(inputs: int, outputs: int) -> ButterflyGrid:
    """Sixteen blocks on both sides; fewer, and four at least, where there are fewer channels.

    Example:
        >>> butterfly_grid(768, 3072).blocks, butterfly_grid(9, 100).blocks
        (16, 8)
    """
    return ButterflyGrid(max(2, min(LEVELS, min(inputs, outputs).bit_length() - 1)))


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import k, m, n, r

    return 2 * r * k * (m + n) + (LEVELS - 2) * 2 * 2**LEVELS * r**2


BUTTERFLY = Definition(
    name="butterfly",
    title="Butterfly Wide",
    unknown="r",
    structure="rank",
    cost=cost,
    widens=True,
    matrices=lambda m, n, x: (),
    source="arXiv 1903.05895, section 3, in 16 blocks of r channels",
    simplified=True,
    grid=butterfly_grid,
)
