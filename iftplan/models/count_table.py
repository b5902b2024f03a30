"""Count tables for people: what one engine saw, the three lists apart."""

from __future__ import annotations

from iftplan.base.units import Convention, count, short
from iftplan.models.counting import CountTable, uncalled_sentence, unknown_sentence
from iftplan.report.table import Table


def count_table(table: CountTable, convention: Convention = Convention.MAC) -> Table:
    """Operator by operator in the order of the pass; what is not in the total stands below it."""
    per, unit = convention.per_mac, convention.unit
    rows = tuple(
        (c.module, c.operator, c.weight or "", str(c.calls), count(c.macs * per)) for c in table.contractions
    )
    columns = ("module", "operator", "weight", ">calls", f">{unit}")
    title = f"{count(table.macs * per)} {unit}, counted by {table.engine}, every weight taken as dense"
    other = sum(table.elementwise.values())
    notes = (f"elementwise work, not in the {unit}: {short(other)} output elements",) if other else ()
    unseen = (unknown_sentence(name, calls) for name, calls in table.unknown.items())
    assumed = (f"assumed: {assumption}" for assumption in table.assumptions)
    return Table(columns, rows, title, (*notes, *unseen, *map(uncalled_sentence, table.uncalled), *assumed))
