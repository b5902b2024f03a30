"""Tables on a terminal: as wide as they are where there is room, else by words, else row by row."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

from iftplan.report.table import Table, printable

if TYPE_CHECKING:
    from rich.console import Console

_GAP = 3  # between two columns
_SPELLED = {
    **{"─": "-", "–": "-", "×": "x", "·": "*", "→": "->", "…": "...", "√": "sqrt", "²": "^2"},
    **{"μ": "mu", "ρ": "rho", "ε": "eps", "σ": "sigma", "Δ": "Delta", "“": '"', "”": '"', "’": "'"},
}


def print_table(table: Table) -> None:
    """Print to stdout, in characters that it has; coloured only on a terminal that allows it."""
    encoding = sys.stdout.encoding
    table = spelled_table(table, encoding)
    sys.stdout.write(spell(_styled(table) if sys.stdout.isatty() else to_text(table), encoding))


def _styled(table: Table) -> str:
    from rich.console import Console

    colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(highlight=False, force_jupyter=False, color_system=colors)
    with console.capture() as captured:
        draw(table, console)
    return captured.get()


def to_text(table: Table) -> str:
    """Plain text as wide as its content: a pipe has no edge to wrap at.

    As `draw` has it on a wide terminal, laid out here because rich takes longer to import than an answer to compute.
    """
    lines = [printable(table.title)] if table.title else []
    if table.rows:
        lines += _grid(table)
    return "".join(f"{line.rstrip()}\n" for line in (*lines, *map(printable, table.notes), ""))


def _grid(table: Table) -> list[str]:
    rows = [tuple(map(printable, row)) for row in table.rows]
    headed = any(table.headings)
    columns = list(zip(*([table.headings] if headed else []), *rows, strict=True))
    widths = [max(map(_width, column)) for column in columns]
    written = [
        [_padded(cell, width, heading) for cell in column]
        for column, width, heading in zip(columns, widths, table.columns, strict=True)
    ]
    lines = [(" " * _GAP).join(cells) for cells in zip(*written, strict=True)]
    if headed:
        lines.insert(1, "─" * (sum(widths) + _GAP * (len(widths) - 1)))
    return lines


def _padded(cell: str, width: int, column: str) -> str:
    room = " " * (width - _width(cell))
    return room + cell if column.startswith(">") else cell + room


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def draw(table: Table, console: Console) -> None:
    """Draw on a console, no line wider than it is but for names that are."""
    from rich.text import Text

    if table.title:
        console.print(Text(printable(table.title), style="bold"), soft_wrap=True)
    if table.rows:
        table = replace(table, rows=tuple(tuple(map(printable, row)) for row in table.rows))
        widths = _widths(table, console.width)
        if widths is None:
            _draw_rows(table, console)
        else:
            _draw_grid(table, widths, console)
    for note in table.notes:
        console.print(Text(printable(note)), soft_wrap=True)
    console.print()


def spell(text: str, encoding: str | None) -> str:
    """Text in characters that an encoding has: signs of the field spelled out, others as escapes."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError as error:
        return "".join(_character(character, error.encoding) for character in text)
    return text


def _character(character: str, encoding: str) -> str:
    there = character.encode(encoding, "ignore")
    simple = character if there else _SPELLED.get(character, character)
    return simple.encode(encoding, "backslashreplace").decode(encoding)


def spelled_table(table: Table, encoding: str | None) -> Table:
    """The table so; before it is laid out, for spelling changes widths."""
    return Table(
        tuple(spell(column, encoding) for column in table.columns),
        tuple(tuple(spell(cell, encoding) for cell in row) for row in table.rows),
        spell(table.title, encoding),
        tuple(spell(note, encoding) for note in table.notes),
    )


def _widths(table: Table, room: int) -> list[int] | None:
    """Of each column, headings and text wrapped between words where they must be; None where even that is too wide."""
    from rich.cells import cell_len

    room -= _GAP * (len(table.columns) - 1)
    natural, least = [], []
    for i, (column, heading) in enumerate(zip(table.columns, table.headings, strict=True)):
        cells = [row[i] for row in table.rows]
        whole = cells if column.startswith(">") else [word for cell in cells for word in cell.split()]
        natural.append(max(map(cell_len, (heading, *cells))))
        least.append(max(map(cell_len, ("", *heading.split(), *whole))))
    if sum(natural) <= room:
        return natural
    return _shared(natural, least, room) if sum(least) <= room else None


def _shared(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """What is left after the least goes to the columns that need little first, so that few wrap."""
    found, spare = list(least), room - sum(least)
    needy = sorted(range(len(natural)), key=lambda i: natural[i] - least[i])
    for position, i in enumerate(needy):
        given = min(natural[i] - least[i], spare // (len(needy) - position))
        found[i] += given
        spare -= given
    return found


def _draw_grid(table: Table, widths: Sequence[int], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=any(table.headings))
    for column, heading, width in zip(table.columns, table.headings, widths, strict=True):
        justify = "right" if column.startswith(">") else "left"
        grid.add_column(Text(heading), justify=justify, overflow="fold", width=width)  # type: ignore[arg-type]
    for row in table.rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def _draw_rows(table: Table, console: Console) -> None:
    """Each row as a paragraph: its first cell, then what the others say, heading and value together."""
    from rich.text import Text

    for name, *cells in table.rows:
        if name:  # a row without one goes on with the row above
            console.print(Text(name, style="bold"), soft_wrap=True)
        told = [
            f"{heading} {cell}".strip()
            for heading, cell in zip(table.headings[1:], cells, strict=True)
            if cell
        ]
        for line in _lines(told, console.width - 4):
            console.print(Text(f"  {line}"), soft_wrap=True)


def _lines(parts: Sequence[str], room: int) -> Iterator[str]:
    """As many parts in a line as fit; one that fills more than a line is wrapped between words."""
    from rich.cells import cell_len

    line = ""
    for part in parts:
        longer = f"{line} · {part}" if line else part
        if cell_len(longer) > room:
            if line:
                yield f"{line} ·"
            *full, longer = wrap(part, room, break_long_words=False, break_on_hyphens=False)
            yield from full
        line = longer
    if line:
        yield line
