"""One table value and the ways to write it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under named columns.

    Attributes:
        columns: headings; one that begins with ">" is set flush right, without the sign.
        rows: cells, already formatted.
        title: a line above.
        notes: lines below.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()

    @property
    def headings(self) -> tuple[str, ...]:
        """Column names as people read them."""
        return tuple(column.removeprefix(">") for column in self.columns)

    def _repr_html_(self) -> str:
        """The table as HTML, for notebooks."""
        from iftplan.report.html_table import table_fragment

        return table_fragment(self)


def to_csv(table: Table) -> str:
    """Comma-separated values with a heading; titles and notes are left to other formats."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.headings)
    writer.writerows(table.rows)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table with its title above and its notes below; every cell escaped."""
    from tabulate import tabulate

    aligned = ["right" if column.startswith(">") else "left" for column in table.columns]
    rows = [[_escaped(cell) for cell in row] for row in table.rows]
    body = tabulate(rows, table.headings, tablefmt="pipe", colalign=aligned, disable_numparse=True)
    parts = [f"### {_escaped(table.title)}" if table.title else "", body, *map(_escaped, table.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_latex(table: Table) -> str:
    """A LaTeX tabular; title and notes as comments."""
    from tabulate import tabulate

    aligned = ["right" if column.startswith(">") else "left" for column in table.columns]
    rows = [list(map(printable, row)) for row in table.rows]
    body = tabulate(rows, table.headings, tablefmt="latex", colalign=aligned, disable_numparse=True)
    comments = [f"% {printable(line)}" for line in (table.title, *table.notes) if line]
    return "\n".join([*comments, body]) + "\n"


def _escaped(cell: str) -> str:
    """Text that cannot become markup: no HTML, no column breaks, no line breaks."""
    for character, safe in (
        ("\\", "\\\\"),
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "\\|"),
        ("`", "\\`"),
    ):
        cell = cell.replace(character, safe)
    return " ".join(printable(cell.replace("\n", " ")).split())


def printable(text: str) -> str:
    """Text from strangers in one line that can steer neither a terminal nor a CI system.

    Control characters and line breaks are shown as escapes, and so is what GitHub would take for a workflow command:
    two colons that begin a line, and `##[` anywhere.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).replace("##[", "#\\x23[")
    start = len(line) - len(line.lstrip())
    return f"{line[:start]}\\x3a{line[start + 1 :]}" if line.startswith("::", start) else line


_NUMBER_GAP = re.compile(r"(?<=\d) (?=\d{3}(?!\d)|%|MACs|FLOPs|parameters)")


def without_breaks(text: str) -> str:
    """Text whose numbers no line break divides, from themselves or from their unit."""
    return _NUMBER_GAP.sub("\u00a0", text)
