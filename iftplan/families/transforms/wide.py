"""Sparse Wide: every layer k times as wide on inputs and outputs, all masked (arXiv 2303.11525, section 3.1).

    k**e·m·n·d = m·n        k = d**(-1/e)

with e = 2, or e = 1 where only the outputs grow (depthwise convolutions). The whole model shares one k.
"""

from typing import Any

from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import d, e, k, m, n

    return k**e * m * n * d


WIDE = Definition(
    name="wide",
    title="Sparse Wide",
    unknown="k",
    structure="multiplier",
    cost=cost,
    widens=True,
    matrices=lambda m, n, x: ((m, n),),
    source="arXiv 2303.11525, section 3.1",
)
