"""How many experts count: Ê, which starts at E_start for one expert and saturates at E_max.

Clark et al., "Unified scaling laws for routed language models" (arXiv 2202.01169).
"""

from __future__ import annotations

from typing import Any


def saturated(experts: Any, start: float, most: float) -> Any:
    """Effective number of experts Ê: 1/Ê = 1/(E - 1 + (1/E_start - 1/E_max)⁻¹) + 1/E_max.

    Args:
        experts: E, a number or an array.
        start: E_start, the value at one expert.
        most: E_max, the value that ever more experts approach.

    Example:
        >>> round(saturated(1, 2.0732, 290.4521), 4), round(saturated(10**9, 2.0732, 290.4521), 1)
        (2.0732, 290.5)
    """
    return 1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most)
