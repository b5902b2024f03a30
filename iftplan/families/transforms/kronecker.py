"""Kronecker Wide: as wide as Sparse Wide, every layer a sum of Kronecker products (Qiu et al., arXiv 2406.06248).

    r·k**(3/2)·(m·sqrt(n) + n·sqrt(m)) = m·n        k = d**(-1/2) as in Sparse Wide

W is the sum of r products A ⊗ B with A of (n1, m1) and B of (n2, m2), for m = m1·m2 inputs and n = n1·n2 outputs. The product
with an input takes two steps: B at each of m1 places and A at each of n2, which costs m1·n2·(m2 + n1) MACs; all
four are about the root of their side. So it costs what a block tensor-train of rank r does, and has only r·(m2·n2 + m1·n1)
weights, each of which is used at many places. Nothing is masked.
"""

from typing import Any

from iftplan.families.transforms.blocks import kronecker_grid
from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    import sympy

    from iftplan.families.symbols import k, m, n, r

    return r * k * sympy.sqrt(k) * (m * sympy.sqrt(n) + n * sympy.sqrt(m))


KRONECKER = Definition(
    name="kronecker",
    title="Kronecker Wide",
    unknown="r",
    structure="rank",
    cost=cost,
    widens=True,
    matrices=lambda m, n, x: (),
    source="arXiv 2406.06248, section 2, with a sum of products of two factors",
    grid=kronecker_grid,
)
