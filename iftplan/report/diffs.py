"""Diffs for people."""

from __future__ import annotations

from iftplan.diffs import Diff
from iftplan.report.table import Table
from iftplan.units import Convention, count


def diff_table(d: Diff, convention: Convention = Convention.MAC) -> Table:
    """The layers that changed, and the totals."""
    per, unit = convention.per_mac, convention.unit
    rows = tuple(
        (
            c.name,
            c.change.value,
            count(c.base_macs * per),
            count(c.head_macs * per),
            signed(c.difference * per),
        )
        for c in d.changes
    )
    columns = ("layer", "change", f">base {unit}", f">head {unit}", ">difference")
    ratio = f" (ratio {d.head.macs / d.base.macs:.6f})" if d.base.macs else ""
    total = f"{count(d.base.macs * per)} → {count(d.head.macs * per)} {unit}, {signed(d.difference * per)}{ratio}, scope model"
    return Table(columns, rows, f"{d.base.name} → {d.head.name}", (total,))


def signed(value: int) -> str:
    """A difference with its sign."""
    return f"{'+' if value >= 0 else '−'}{count(abs(value))}"
