"""Monarch Wide: as wide as Sparse Wide, every layer a pair of block-diagonal factors (Dao et al., arXiv 2204.00595).

    r·k·(m + n) = m·n        r = m·n/(k·(m + n))        k = d**(-1/2) as in Sparse Wide

Both sides fall into four blocks, with r channels between the factors for each: at the cost of a low-rank pair of rank r
the weight has rank 4·r. Nothing is masked.
"""

from typing import Any

from iftplan.families.transforms.blocks import monarch_grid
from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import k, m, n, r

    return r * k * (m + n)


MONARCH = Definition(
    name="monarch",
    title="Monarch Wide",
    unknown="r",
    structure="rank",
    cost=cost,
    widens=True,
    matrices=lambda m, n, x: (),
    source="arXiv 2204.00595, section 3.1, with four blocks",
    grid=monarch_grid,
)
