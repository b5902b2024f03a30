"""Table 1 of arXiv 2303.11525: the search space of each family, as a formula and in whole numbers for a layer."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from iftplan.families.builtin import family_named
from iftplan.families.solution import Solution
from iftplan.families.solver import solve
from iftplan.models.notation import parse_layer

LAYER = "conv3x3:64-64@32x32"
"""The layer of the whole numbers: a matrix of m = 576 inputs and n = 64 outputs at every pixel."""


@dataclass(frozen=True, slots=True)
class CardinalityRow:
    """Search space of a family at a sparsity.

    Attributes:
        family: by name.
        formula: as published, in maskable weights.
        solution: of the layer.
    """

    family: str
    formula: str
    solution: Solution


_FORMULAS = {"wide": "k²·m·n", "parallel": "b·m·n", "factorized": "r·(m+n)", "doped": "m·n"}
_SPARSITIES = (Fraction(1, 2), Fraction(3, 4), Fraction(9, 10))


def cardinality_rows() -> tuple[CardinalityRow, ...]:
    """Search spaces of the four families at the paper's three sparsities."""
    layer = parse_layer(LAYER)
    return tuple(
        CardinalityRow(name, formula, solve(layer, family_named(name), sparsity))
        for name, formula in _FORMULAS.items()
        for sparsity in _SPARSITIES
    )
