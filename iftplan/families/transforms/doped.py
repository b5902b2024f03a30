"""Sparse Doped: a dense low-rank pair of rank r beside one masked m×n (arXiv 2303.11525, section 3.1).

    r·(m + n) + m·n·d = m·n        r = (1 - d)·m·n/(m + n)

Only the m×n weight is masked; U and V stay dense.
"""

from typing import Any

from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import d, m, n, r

    return r * (m + n) + m * n * d


DOPED = Definition(
    name="doped",
    title="Sparse Doped",
    unknown="r",
    structure="rank",
    cost=cost,
    matrices=lambda m, n, x: ((m, n),),
    source="arXiv 2303.11525, section 3.1",
)
