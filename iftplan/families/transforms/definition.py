"""What a family says of itself: one cost expression and which symbol it leaves free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iftplan.families.transforms.blocks import FactorGrid


@dataclass(frozen=True, slots=True)
class Definition:
    """Definition of a family: its equation and its title, before anything is derived.

    Attributes:
        name: how it is named on the command line and in documents.
        title: how people call it.
        unknown: the symbol that the iso-FLOP equation is solved for: "k", "b", "r" or one of your own.
        structure: what the unknown is: multiplier, branches, rank.
        cost: returns MACs per position in the shared symbols (`iftplan.families.symbols`), linear in the density d;
            a function, so that SymPy is imported only by those who derive.
        widens: the layer runs at the width of Sparse Wide; k is then the unknown, or set by Sparse Wide.
        matrices: shapes of the masked matrices at (m, n, unknown), for masks with structure; None treats
            the masked weights as one vector.
        source: paper and section.
        simplified: whether SymPy writes the closed form for symbolic channels, and not the generated code: that leaves the
            root of a quadratic as the formula has it, which is longer than what SymPy makes of it.
        grid: number of blocks at so many input and output channels, for products of factors in blocks, whose cost is
            counted with the padding that equal blocks need; None for families without blocks.
    """

    name: str
    title: str
    unknown: str
    structure: str
    cost: Callable[[], Any]
    widens: bool = False
    matrices: Callable[[int, int, int], tuple[tuple[int, int], ...]] | None = None
    source: str = ""
    simplified: bool = False
    grid: Callable[[int, int], FactorGrid] | None = None
