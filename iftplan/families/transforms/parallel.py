"""Sparse Parallel: b masked branches with a non-linearity each, outputs summed (arXiv 2303.11525, section 3.1).

b·m·n·d = m·n        b = 1/d
"""

from typing import Any

from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import b, d, m, n

    return b * m * n * d


PARALLEL = Definition(
    name="parallel",
    title="Sparse Parallel",
    unknown="b",
    structure="branches",
    cost=cost,
    matrices=lambda m, n, x: ((m, n),) * x,
    source="arXiv 2303.11525, section 3.1",
)
