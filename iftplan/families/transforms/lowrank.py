"""Low-rank Wide, the structured control: as wide as Sparse Wide, every layer dense U·V (arXiv 2303.11525, Table 11).

    r·k·(m + n) = m·n        r = m·n/(k·(m + n))        k = d**(-1/2) as in Sparse Wide

Nothing is masked, so the rank cannot close the budget to the MAC and a residual stays.
"""

from typing import Any

from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import k, m, n, r

    return r * k * (m + n)


LOWRANK = Definition(
    name="lowrank",
    title="Low-rank Wide",
    unknown="r",
    structure="rank",
    cost=cost,
    widens=True,
    matrices=lambda m, n, x: (),
    source="arXiv 2303.11525, Table 11",
)
