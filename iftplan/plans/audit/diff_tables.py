"""Diffs for people."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from iftplan.base.units import Convention, count, percent, signed
from iftplan.plans.audit.diff import Diff
from iftplan.report.page import Outcome, Page, Section, Share
from iftplan.report.table import Table


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


def diff_page(d: Diff, convention: Convention = Convention.MAC) -> Page:
    """The diff as a page for a pull request, biggest contribution first."""
    per, unit = convention.per_mac, convention.unit
    summary = (
        ("base", f"{d.base.name}: {count(d.base.macs * per)} {unit}"),
        ("head", f"{d.head.name}: {count(d.head.macs * per)} {unit}"),
        ("difference", change(d.base.macs, d.head.macs, convention)),
        ("layers that differ", count(len(d.changes))),
    )
    section = Section(
        subject=f"{d.base.name} → {d.head.name}",
        outcome=Outcome.REPORTED,
        headline=diff_headline(d, convention),
        summary=summary,
        layers=Table(diff_table(d, convention).columns, diff_table(d, convention).rows),
        shares=shares(d.base.layers, d.head.layers, per),
    )
    return Page("iftplan diff", (section,))


def diff_headline(d: Diff, convention: Convention = Convention.MAC) -> str:
    """Change of the total in one line, with the layer that contributes most."""
    if not d.changes:
        return f"no change, {count(d.head.macs * convention.per_mac)} {convention.unit}"
    first = d.changes[0]
    at = f"the most in {first.name} ({first.change.value}, {signed(first.difference * convention.per_mac)})"
    return f"{change(d.base.macs, d.head.macs, convention)}; {at}"


def change(base: int, head: int, convention: Convention = Convention.MAC) -> str:
    """Change from one total to another: `+37 748 736 MACs (+6.8 %)`.

    Args:
        base: MACs before.
        head: MACs now.
        convention: the unit that is printed.
    """
    ratio = f" ({percent(Fraction(head - base, base))})" if base else ""
    return f"{signed((head - base) * convention.per_mac)} {convention.unit}{ratio}"


def shares(base: Mapping[str, int], head: Mapping[str, int], per: int) -> tuple[Share, ...]:
    """Share of every layer of head in the whole, with what it was before; a new one was nothing.

    Args:
        base: layer → MACs before.
        head: layer → MACs now.
        per: counts for each MAC.
    """
    return tuple(Share(name, macs * per, base.get(name, 0) * per) for name, macs in head.items())
