"""A table as a fragment of HTML, for notebooks.

Notebooks are read in a dozen programs, light and dark, some of which drop style sheets (GitHub) and some of which set
every cell flush right (Jupyter): so there are no colours, alignment stands in each cell, and folding is HTML's own.
Names come from strangers; everything is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from iftplan.report.table import Table, printable, without_breaks

_NUMBER, _WORDS = "text-align:right;white-space:nowrap", "text-align:left"
_FOLDED_AFTER = 12  # rows that are read without a click
_SHOWN = 1000  # rows: a page of more is slow to scroll and is read by nobody


def table_fragment(table: Table) -> str:
    """The table with its title above and its notes below; folded where it is long."""
    return "".join(_parts(table))


def _parts(table: Table) -> Iterator[str]:
    if table.title:
        yield f"<p><b>{_text(table.title)}</b></p>"
    if len(table.rows) > _FOLDED_AFTER:
        what = f"{table.headings[0]}s" if table.headings[0] else "rows"
        yield f"<details><summary>{len(table.rows)} {_text(what)}</summary>{_grid(table)}</details>"
    elif table.rows:
        yield _grid(table)
    if table.notes:
        yield f"<p>{'<br>'.join(map(_text, table.notes))}</p>"


def _grid(table: Table) -> str:
    head = f"<thead>{_row('th', table.headings, table.columns)}</thead>" if any(table.headings) else ""
    rows = table.rows[:_SHOWN]
    body = "".join(_row("td", row, table.columns) for row in rows)
    left = len(table.rows) - len(rows)
    more = f"<p>… and {left} more; print the value to see them all.</p>" if left else ""
    return f"<table>{head}<tbody>{body}</tbody></table>{more}"


def _row(tag: str, cells: Iterable[str], columns: Sequence[str]) -> str:
    inside = (_cell(tag, cell, column) for cell, column in zip(cells, columns, strict=True))
    return f"<tr>{''.join(inside)}</tr>"


def _cell(tag: str, cell: str, column: str) -> str:
    side = "right" if column.startswith(">") else "left"
    return f'<{tag} style="text-align:{side}">{without_breaks(_text(cell))}</{tag}>'


def _text(text: str) -> str:
    return escape(printable(text))
