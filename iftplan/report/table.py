"""One table value and the ways to write it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
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
    return " ".join(cell.split())


def print_table(table: Table, *, width: int | None = None) -> None:
    """Print to stdout, coloured only on a terminal that allows it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, no_color=True, width=width or _natural_width(table))
    if table.title:
        console.print(Text(table.title, style="bold"), soft_wrap=True)
    if table.rows:
        grid = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in table.columns:
            right = column.startswith(">")
            grid.add_column(
                Text(column.removeprefix(">")),
                justify="right" if right else "left",
                overflow="fold",
                no_wrap=right,
            )
        for row in table.rows:
            grid.add_row(*map(Text, row))
        console.print(grid)
    for note in table.notes:
        console.print(Text(note), soft_wrap=True)


def _natural_width(table: Table) -> int:
    """As wide as the content: a pipe has no edge to wrap at."""
    lines: Sequence[tuple[str, ...]] = (table.headings, *table.rows)
    return sum(max((len(line[i]) for line in lines), default=0) + 3 for i in range(len(table.columns))) + 10
