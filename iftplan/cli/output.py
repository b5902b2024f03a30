"""Where results go and in which form: stdout or a file, table or JSON or CSV or Markdown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from iftplan.documents import Document, dumps, write_text
from iftplan.errors import InputError
from iftplan.report.table import Table, print_table, printable, to_csv, to_latex, to_markdown, to_text


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"


_SUFFIXES = {".csv": Format.CSV, ".md": Format.MARKDOWN, ".markdown": Format.MARKDOWN, ".tex": Format.LATEX}


def emit(
    tables: Sequence[Table],
    document: Callable[[], Document],
    form: Format | None,
    output: str | None,
    *,
    summary: Sequence[Table] = (),
    latex: str | None = None,
) -> None:
    """Write a result.

    Args:
        tables: what people read; CSV takes the first of them.
        document: what machines read.
        form: the form asked for; by default a table on stdout, and JSON in a file unless its name says otherwise.
        output: a file, or None or "-" for stdout.
        summary: tables that are shown on stderr when the data itself goes to a file.
        latex: what LaTeX gets instead of the tables.
    """
    if output == "":
        raise InputError("-o names no file; write -o plan.json, or -o - for stdout.")
    to_file = output is not None and output != "-"
    if form is None:
        form = _SUFFIXES.get(Path(output).suffix, Format.JSON) if to_file and output else Format.TABLE
    if form is Format.TABLE and not to_file:
        with _to_stdout():
            for table in tables:
                print_table(table)
        return
    text = latex if form is Format.LATEX and latex is not None else _text(tables, document, form)
    if to_file and output:
        write_text(text, output)
        say(*(to_text(table).rstrip() for table in summary), f"written: {output}")
    else:
        with _to_stdout():
            sys.stdout.write(text)


@contextmanager
def _to_stdout() -> Iterator[None]:
    """Turn trouble with stdout, a closed pipe or a full disk, into a message."""
    if sys.stdout is None:  # started with it closed
        raise InputError("stdout is closed, so nothing can be printed; write to a file with -o FILE instead.")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise InputError(unwritten(error)) from error


def unwritten(error: OSError) -> str:
    """What is said when stdout did not take everything."""
    return f"stdout could not be written to the end ({error.strerror}); write to a file with -o FILE instead."


def _text(tables: Sequence[Table], document: Callable[[], Document], form: Format) -> str:
    match form:
        case Format.JSON:
            return dumps(document())
        case Format.CSV:
            return to_csv(tables[0])
        case Format.MARKDOWN:
            return "\n".join(to_markdown(table) for table in tables)
        case Format.LATEX:
            return "\n".join(map(to_latex, tables))
        case Format.TABLE:
            return "".join(map(to_text, tables))


def say(*lines: str) -> None:
    """Messages to people, on stderr."""
    for line in lines:
        print(printable(line), file=sys.stderr)  # noqa: T201  (this is where messages go out)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on stderr what takes a while: a spinner on a terminal, one plain line elsewhere."""
    if not sys.stderr.isatty():
        say(f"{what} …")
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield
