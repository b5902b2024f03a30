"""A family's closed form as numbers use it: what `iftplan.families.derivation` gets out of one cost expression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.families.transforms.definition import Definition
from iftplan.models.spec import Kind, LayerSpec
from iftplan.report.display import Displayed

if TYPE_CHECKING:
    from iftplan.report.table import Table

Exact = int | Fraction


@dataclass(frozen=True, slots=True)
class Root:
    """The solved unknown for one way in which a layer's cost grows.

    Attributes:
        text: for instance `b = 1/d`.
        latex: the same in LaTeX.
        value: (m, n, d, k, A) → the real-valued structure.
    """

    text: str
    latex: str
    value: Callable[[int, int, Fraction, float, Exact], float | Fraction]


@dataclass(frozen=True, slots=True)
class Form:
    """Costs that follow from a family's equation, in exact arithmetic except for roots.

    Attributes:
        cost: the cost expression as text.
        maskable: the masked weights as text: the search space.
        full: the root where weights grow with inputs and outputs (e = 2).
        outputs: the root where only the outputs grow (e = 1, depthwise).
        products: the root beside A MACs of activation products, which grow with the width (attention).
        masked: (m, n, x, e, k) → masked weights: the coefficient of d.
        fixed: (m, n, x, e, k) → weights that stay dense: the rest; a float if the cost has roots, in families whose
            blocks are counted by their grid.
        covers: whether the structure is rounded up until its capacity covers the budget (True), or down
            so that its dense part stays within it (False).
    """

    cost: str
    maskable: str
    full: Root
    outputs: Root
    products: Root
    masked: Callable[[int, int, Exact, int, Exact], Exact]
    fixed: Callable[[int, int, Exact, int, Exact], Exact | float]
    covers: bool

    def root(self, layer: LayerSpec) -> Root:
        """The root for this kind of layer."""
        return (
            self.outputs if layer.depthwise else self.products if layer.kind is Kind.ATTENTION else self.full
        )


@dataclass(frozen=True, slots=True)
class Family(Displayed):
    """Sparse-IFT family, ready to solve: its definition and the solution that follows from it."""

    definition: Definition
    form: Form

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.families.tables import family_table

        return (family_table(self),)

    @property
    def name(self) -> str:
        """Name of the family on the command line and in documents."""
        return self.definition.name

    @property
    def solves_width(self) -> bool:
        """Whether the unknown is the width multiplier itself."""
        return self.definition.unknown == "k"
