"""What changed between two models, plans or audits: layer by layer, biggest contribution first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from iftplan.base.documents import Document, with_digest
from iftplan.base.units import Convention, by_number
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table

SCHEMA = "iftplan.diff/1"


@dataclass(frozen=True, slots=True)
class LayerCosts:
    """A subject's MACs by layer, all in scope *model*."""

    name: str
    layers: Mapping[str, int]

    @property
    def macs(self) -> int:
        """All MACs of the ledger."""
        return sum(self.layers.values())


class ChangeKind(StrEnum):
    """Kind of a layer's change."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class LayerChange:
    """Change of one layer: its MACs before and now."""

    name: str
    change: ChangeKind
    base_macs: int
    head_macs: int

    @property
    def difference(self) -> int:
        """MACs gained by the layer."""
        return self.head_macs - self.base_macs


@dataclass(frozen=True, slots=True)
class Diff(Displayed, Framed):
    """Difference of two ledgers, layer by layer."""

    base: LayerCosts
    head: LayerCosts
    changes: tuple[LayerChange, ...]

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.plans.audit.tables import diff_table

        return (diff_table(self),)

    def records(self) -> Sequence[Record]:
        """A row for each layer that changed, as in the document."""
        layers: Sequence[Record] = diff_document(self)["layers"]
        return layers

    @property
    def difference(self) -> int:
        """MACs gained in total."""
        return self.head.macs - self.base.macs


def diff(base: LayerCosts, head: LayerCosts) -> Diff:
    """Difference of two ledgers, the biggest change first.

    Example:
        >>> d = diff(LayerCosts("a", {"conv": 10, "fc": 5}), LayerCosts("b", {"conv": 12, "head": 5}))
        >>> [(c.name, c.change.value, c.difference) for c in d.changes]
        [('fc', 'removed', -5), ('head', 'added', 5), ('conv', 'changed', 2)]
    """
    names = dict.fromkeys((*base.layers, *head.layers))
    changes = [_change(name, base, head) for name in names if _differs(name, base, head)]
    return Diff(base, head, tuple(sorted(changes, key=lambda c: (-abs(c.difference), by_number(c.name)))))


def _differs(name: str, base: LayerCosts, head: LayerCosts) -> bool:
    present = (name in base.layers) == (name in head.layers)
    return not present or base.layers[name] != head.layers[name]


def _change(name: str, base: LayerCosts, head: LayerCosts) -> LayerChange:
    change = (
        ChangeKind.ADDED
        if name not in base.layers
        else ChangeKind.REMOVED
        if name not in head.layers
        else ChangeKind.CHANGED
    )
    return LayerChange(name, change, base.layers.get(name, 0), head.layers.get(name, 0))


def diff_document(d: Diff, convention: Convention = Convention.MAC) -> Document:
    """The diff as a JSON object, sealed with its digest."""
    per = convention.per_mac
    return with_digest(
        {
            "schema": SCHEMA,
            "convention": convention.value,
            "scope": "model",
            "base": {"name": d.base.name, "macs": d.base.macs * per},
            "head": {"name": d.head.name, "macs": d.head.macs * per},
            "difference": d.difference * per,
            "ratio": d.head.macs / d.base.macs if d.base.macs else None,
            "layers": [
                {
                    "name": c.name,
                    "change": c.change.value,
                    "base_macs": c.base_macs * per,
                    "head_macs": c.head_macs * per,
                    "difference": c.difference * per,
                }
                for c in d.changes
            ],
        }
    )
