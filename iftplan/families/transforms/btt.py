"""Block tensor-train Wide: as wide as Sparse Wide, every layer two cores of rank r (Qiu et al., arXiv 2406.06248).

    r·k**(3/2)·(m·sqrt(n) + n·sqrt(m)) = m·n        k = d**(-1/2) as in Sparse Wide

Each side falls into as many blocks as a block has channels, and every block of the weight has rank r; at
r = 1 that is a Monarch matrix of as many blocks. Nothing is masked.
"""

from typing import Any

from iftplan.families.transforms.blocks import root_grid
from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    import sympy

    from iftplan.families.symbols import k, m, n, r

    return r * k * sympy.sqrt(k) * (m * sympy.sqrt(n) + n * sympy.sqrt(m))


BTT = Definition(
    name="btt",
    title="Block tensor-train Wide",
    unknown="r",
    structure="rank",
    cost=cost,
    widens=True,
    matrices=lambda m, n, x: (),
    source="arXiv 2406.06248, section 2, with two cores",
    grid=root_grid,
)
