"""Which weights training moved: the update sparsity between two checkpoints, layer by layer and whole.

Reinforcement learning fine-tunes small subnetworks: most weights of a model end where they began (arXiv 2505.11711).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import TYPE_CHECKING

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import by_number, count, fraction
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table

SCHEMA = "iftplan.updates/1"


@dataclass(frozen=True, slots=True)
class WeightUpdate:
    """Change of one weight tensor between two checkpoints.

    Attributes:
        name: of the parameter.
        weights: entries that can move: under a mask, those that either checkpoint keeps.
        moved: entries with |Δθ| above each threshold of the report.
        square_change: Σ Δθ².
        square_base: Σ θ² before.
    """

    name: str
    weights: int
    moved: tuple[int, ...]
    square_change: float
    square_base: float

    @property
    def relative_change(self) -> float | None:
        """‖Δθ‖₂ over ‖θ‖₂ before; None where the weight was zero."""
        return sqrt(self.square_change / self.square_base) if self.square_base else None

    def sparsity(self, index: int) -> Fraction | None:
        """Update sparsity at a threshold: the part of the weights that did not move; None where there are none."""
        return 1 - Fraction(self.moved[index], self.weights) if self.weights else None


@dataclass(frozen=True, slots=True)
class UpdateReport(Displayed, Framed):
    """Weights that moved between two checkpoints.

    Attributes:
        base: name of the first checkpoint.
        head: name of the second.
        thresholds: sizes of |Δθ| above which a weight has moved.
        layers: one for each weight tensor, in the order of the model.
    """

    base: str
    head: str
    thresholds: tuple[float, ...]
    layers: tuple[WeightUpdate, ...]

    @property
    def total(self) -> WeightUpdate:
        """Sum over all weights."""
        return WeightUpdate(
            "all weights",
            sum(x.weights for x in self.layers),
            tuple(sum(x.moved[i] for x in self.layers) for i in range(len(self.thresholds))),
            sum(x.square_change for x in self.layers),
            sum(x.square_base for x in self.layers),
        )

    def tables(self) -> tuple[Table, ...]:
        """The table that shows the value."""
        return (updates_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each layer and threshold, as in the document."""
        return [row for layer in self.layers for row in _rows(layer, self.thresholds)]


def updates_table(found: UpdateReport) -> Table:
    """Number and share of the weights that moved, by layer and whole."""
    from iftplan.report.table import Table

    rows = tuple(
        (
            x.name,
            count(x.weights),
            *(_moved(x, i) for i in range(len(found.thresholds))),
            "" if x.relative_change is None else f"{x.relative_change:.4f}",
        )
        for x in (*sorted(found.layers, key=lambda x: by_number(x.name)), found.total)
    )
    columns = (
        "weight",
        ">weights",
        *(f">moved by more than {limit:g}" for limit in found.thresholds),
        ">relative change",
    )
    sparsities = [found.total.sparsity(i) for i in range(len(found.thresholds))]
    notes = tuple(
        f"update sparsity {float(part):.4f} at |Δθ| > {limit:g}"
        for part, limit in zip(sparsities, found.thresholds, strict=True)
        if part is not None
    )
    return Table(columns, rows, f"{found.base} → {found.head}", notes)


def updates_document(found: UpdateReport) -> Document:
    """The report as a JSON object, sealed with its digest."""
    return with_digest(
        {
            "schema": SCHEMA,
            "base": found.base,
            "head": found.head,
            "total": _rows(found.total, found.thresholds),
            "updates": list(found.records()),
        }
    )


def _moved(update: WeightUpdate, index: int) -> str:
    share = f" ({update.moved[index] / update.weights:.1%})" if update.weights else ""
    return f"{count(update.moved[index])}{share}"


def _rows(update: WeightUpdate, thresholds: Sequence[float]) -> list[Record]:
    return [
        {
            "name": update.name,
            "threshold": limit,
            "weights": update.weights,
            "moved": update.moved[i],
            "update_sparsity": None if (part := update.sparsity(i)) is None else float(part),
            "update_sparsity_exact": None if part is None else fraction(part),
            "relative_change": update.relative_change,
        }
        for i, limit in enumerate(thresholds)
    ]
