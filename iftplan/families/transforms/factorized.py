"""Sparse Factorized: U (m×r), a non-linearity, V (r×n), both masked (arXiv 2303.11525, section 3.1).

    r·(m + n)·d = m·n        r = m·n/((m + n)·d)

For a convolution U carries the kernel, stride and padding, and V is 1×1; for a transposed one it is the reverse.
"""

from typing import Any

from iftplan.families.transforms.definition import Definition


def cost() -> Any:
    """MACs per position."""
    from iftplan.families.symbols import d, m, n, r

    return r * (m + n) * d


FACTORIZED = Definition(
    name="factorized",
    title="Sparse Factorized",
    unknown="r",
    structure="rank",
    cost=cost,
    matrices=lambda m, n, x: ((m, x), (x, n)),
    source="arXiv 2303.11525, section 3.1",
)
