"""What solving a layer gives: structure, counts, what is left over, and how it came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.units import count, decimal_text
from iftplan.masks.cardinality import Cardinality
from iftplan.models.spec import LayerSpec
from iftplan.report.display import Displayed

if TYPE_CHECKING:
    from iftplan.report.table import Table

Structure = Mapping[str, int | float | None]
"""`{in_channels, out_channels, multiplier}`, `{branches}`, `{rank}` …; a value is None where it is not known."""


class Outcome(StrEnum):
    """Outcome of a solution; the values are what users read."""

    EXACT = "closed to the MAC"
    RESIDUAL = "the structure leaves a residual"
    LEFT_ALONE = "left as it is: this family does not apply to depthwise layers"
    GROUPED = "left as it is: its groups are blocks already"
    FREE = "costs no MACs: nothing to close"
    SYMBOLIC = "closed form only: the channels are symbolic"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a derivation: the step, and the equation that results."""

    what: str
    equation: str
    latex: str


@dataclass(frozen=True, slots=True)
class Solution(Displayed):
    """Layer realised in a family at equal MACs; counts are None where it is symbolic or infeasible.

    Attributes:
        layer: the dense layer.
        transform: the family's name.
        sparsity: the sparsity asked for.
        closed_form: the structure's formula as text.
        closed_form_latex: the same in LaTeX.
        search_space: the maskable weights' formula.
        structure: `{in_channels, out_channels, multiplier}`, `{branches}`, `{rank}` …; values are None where unknown.
        nnz: weights kept under the mask.
        capacity: maskable weights.
        dense_weights: weights of the structure that are never masked (U and V of the doped member).
        macs: MACs of one forward pass, positions and activation products included.
        dense_macs: MACs of the dense layer.
        outcome: how it came out.
        reason: for an infeasible request: what is in the way and the nearest that is possible; for others, that some N:M
            groups keep N-1 to close the budget.
        cardinality: the size of the search space.
        steps: how the structure and the counts come about, where that was asked for.
        reuse: how often each of the dense weights is used at one position, on average.
    """

    layer: LayerSpec
    transform: str
    sparsity: Fraction
    closed_form: str
    closed_form_latex: str
    search_space: str
    outcome: Outcome
    structure: Structure = field(default_factory=dict)
    nnz: int | None = None
    capacity: int | None = None
    dense_weights: int = 0
    macs: int | None = None
    dense_macs: int | None = None
    reason: str = ""
    cardinality: Cardinality = field(default_factory=Cardinality)
    steps: tuple[Step, ...] = ()
    reuse: Fraction = Fraction(1)

    def __repr__(self) -> str:
        """One line: the layer, what it becomes, what that costs and how it came out."""
        structure = "".join(f", {name} {value}" for name, value in self.structure.items())
        macs = "" if self.macs is None else f", {count(self.macs)} of {count(self.dense_macs or 0)} MACs"
        return f"<Solution {self.layer}: {self.transform}, sparsity {decimal_text(self.sparsity)}{structure}{macs}, {self.outcome}>"

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.families.tables import solution_tables

        return solution_tables(self)

    @property
    def dense_uses(self) -> int:
        """Uses of the weights that no mask touches, at one position: their number times their reuse."""
        return int(self.dense_weights * self.reuse)

    @property
    def density(self) -> Fraction | None:
        """nnz/capacity: 1 where nothing is maskable."""
        if self.nnz is None or self.capacity is None:
            return None
        return Fraction(self.nnz, self.capacity) if self.capacity else Fraction(1)

    @property
    def residual_macs(self) -> int | None:
        """Dense MACs minus realised MACs: 0 when the budget is closed."""
        return None if self.macs is None or self.dense_macs is None else self.dense_macs - self.macs
