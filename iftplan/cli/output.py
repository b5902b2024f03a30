"""Where results go and in which form: stdout or a file, table or JSON or CSV or Markdown."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from iftplan.base.errors import InputError
from iftplan.base.options import in_options

if TYPE_CHECKING:  # `--help` needs none of it
    from iftplan.base.documents import Document
    from iftplan.report.page import Page
    from iftplan.report.records import Record
    from iftplan.report.table import Table

UNREAD = 141
"""The exit status where `| head` had enough, as shells count it: 128 and the number of the signal."""


class Interrupted(Exception):  # noqa: N818  (as Python's own)
    """Somebody pressed Ctrl-C; the message says what is done and how to go on."""


class Format(StrEnum):
    """Format in which data is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    LATEX = "latex"
    HTML = "html"
    JUNIT = "junit"
    GITHUB = "github"
    SARIF = "sarif"


_SUFFIXES = {
    ".csv": Format.CSV,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".tex": Format.LATEX,
    ".html": Format.HTML,
    ".xml": Format.JUNIT,
    ".sarif": Format.SARIF,
}
_OF_REPORTS = _SUFFIXES | {".json": Format.JSON}
PAGES = {
    Format.HTML: ("iftplan.report.html.file", "page_html"),
    Format.JUNIT: ("iftplan.report.junit", "page_junit"),
    Format.GITHUB: ("iftplan.report.github", "page_annotations"),
    Format.SARIF: ("iftplan.report.sarif", "page_sarif"),
}
"""Formats that a page can have, and tables have not: the module and the function that writes each."""

FORMAT_HELP = "table (default on stdout), json (default in a file), csv, markdown, latex, html, junit, github (annotations) or sarif."


def emit(
    tables: Sequence[Table],
    document: Callable[[], Document],
    form: Format | None,
    output: str | None,
    *,
    summary: Sequence[Table] = (),
    latex: str | None = None,
    records: Callable[[], Sequence[Record]] | None = None,
    page: Callable[[], Page] | None = None,
    also: Sequence[str] = (),
) -> None:
    """Write a result.

    Args:
        tables: what people read.
        document: what machines read, as JSON; CSV has its list of things.
        form: the form asked for; by default a table on stdout, and JSON in a file unless its name says otherwise.
        output: a file, or None or "-" for stdout.
        summary: tables that are shown on stderr when the data itself goes to a file.
        latex: what LaTeX gets instead of the tables.
        records: what CSV gets, a row for each, where the document's own list is not it.
        page: what Markdown and the formats of reports are written from; only audits, diffs and checks have one.
        also: more files, each in the form that its name says.

    Raises:
        InputError: a format that this result does not have, or whose library is not installed.
    """
    from iftplan.base.documents import write_text
    from iftplan.report.terminal import print_table

    if output == "":
        raise InputError("-o names no file. Write -o plan.json, or -o - for stdout.")
    to_file = output is not None and output != "-"
    if form is None:
        form = file_format(output, form) if to_file and output else Format.TABLE

    def rendered(form: Format) -> str:
        if form in PAGES and page is None:
            raise InputError(
                f"--format {form} is for reports of audit, check and diff. Use table or markdown to read this result, csv or json to process it."
            )
        if page is not None and (form in PAGES or form is Format.MARKDOWN):
            return page_text(page(), form)
        if form is Format.CSV:
            return _csv(tables, document(), records)
        return latex if form is Format.LATEX and latex is not None else _text(tables, document, form)

    # all before any: a library that is missing must not leave some of the files, as if the rest were unasked
    texts = {file: rendered(report_form(file)) for file in also}
    for file, text in texts.items():
        write_text(text, file)
        say(f"written: {file}")
    if to_file and output:
        write_text(rendered(form), output)
        say(*text_lines(*summary), f"written: {output}")
    elif form is Format.TABLE:
        with _to_stdout():
            for table in tables:
                print_table(_for_terminal(table))
    else:
        text = rendered(form)
        with _to_stdout():
            sys.stdout.write(text)


def _for_terminal(table: Table) -> Table:
    """A table whose sentences name options of the command line."""
    rows = tuple(tuple(map(in_options, row)) for row in table.rows)
    return replace(table, rows=rows, notes=tuple(map(in_options, table.notes)))


def file_format(file: str, form: Format | None) -> Format:
    """Format that a file is written in.

    Args:
        file: its name, whose ending chooses.
        form: the form asked for, which chooses before.
    """
    return form or _SUFFIXES.get(Path(file).suffix.lower(), Format.JSON)


def report_form(file: str) -> Format:
    """The form that a further file's name asks for; nothing is written.

    Raises:
        InputError: the name says no form, or there is no such folder.
    """
    path = Path(file)
    form = _OF_REPORTS.get(path.suffix.lower())
    if form is None:
        raise InputError(
            f"--report {file!r} has no known ending. Name the file with one of {', '.join(_OF_REPORTS)}, or use --format for stdout."
        )
    if not path.parent.is_dir():
        raise InputError(
            f"--report {file} cannot be written: there is no folder {path.parent}. Make it first."
        )
    return form


@contextmanager
def _to_stdout() -> Iterator[None]:
    """Turn trouble with stdout into a message; a reader that has had enough is no trouble."""
    if sys.stdout is None:  # started with it closed
        raise InputError("stdout is closed, so nothing can be printed. Write to a file with -o FILE.")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise typer.Exit(UNREAD) from error
    except OSError as error:
        raise InputError(write_error(error)) from error


def write_error(error: OSError) -> str:
    """Sentence that stdout did not take everything."""
    return f"stdout could not be written to the end ({error.strerror}). Write to a file with -o FILE."


def _text(tables: Sequence[Table], document: Callable[[], Document], form: Format) -> str:
    from iftplan.base.documents import dumps
    from iftplan.report.table import to_latex, to_markdown
    from iftplan.report.terminal import to_text

    match form:
        case Format.JSON:
            return dumps(document())
        case Format.MARKDOWN:
            return "\n".join(to_markdown(table) for table in tables)
        case Format.LATEX:
            return "\n".join(map(to_latex, tables))
    return "".join(map(to_text, tables))


def _csv(tables: Sequence[Table], document: Document, records: Callable[[], Sequence[Record]] | None) -> str:
    from iftplan.report.records import document_records, records_csv
    from iftplan.report.table import to_csv

    found = document_records(document) if records is None else records()
    return to_csv(tables[0]) if found is None else records_csv(found, document.get("convention", "mac"))


def page_text(page: Page, form: Format) -> str:
    """A report in one of the formats that are read outside a terminal.

    Raises:
        InputError: the format's library is not installed.
    """
    module, function = PAGES.get(form, ("iftplan.report.markdown", "page_markdown"))
    write: Callable[[Page], str] = getattr(import_module(module), function)
    return write(page)


def say(*lines: str) -> None:
    """Messages to people, on stderr; where nobody can be told, nothing is."""
    from iftplan.report.table import printable
    from iftplan.report.terminal import spell

    if sys.stderr is None:  # started with it closed; print would take stdout instead
        return
    for line in lines:
        text = spell(printable(in_options(line)), getattr(sys.stderr, "encoding", None))
        try:
            print(text, file=sys.stderr, flush=True)  # noqa: T201  (this is where messages go out)
        except (OSError, ValueError):  # a full device, a closed pipe: the exit status still says how it went
            silence(sys.stderr)
            return


def say_next(words: Sequence[str], form: Format | None = None, output: str | None = None) -> None:
    """Say on a terminal which command comes next; nothing where data for a machine went to the same screen.

    Args:
        words: of the command after `iftplan`; none for nothing to say. MODEL and the like stay as they are.
        form: the form that was asked for.
        output: where the data went, None or "-" for stdout.
    """
    if words and _watched() and (form in (None, Format.TABLE) or output not in (None, "-")):
        say(f"next: iftplan {' '.join(map(shlex.quote, words))}")


def silence(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, so that the end of the process does not stumble over it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def text_lines(*tables: Table) -> list[str]:
    """Tables as lines for `say`."""
    from iftplan.report.terminal import to_text

    return [line for table in tables for line in to_text(table).rstrip().split("\n")]


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on stderr what takes a while: a spinner on a terminal, one plain line elsewhere."""
    if not _watched():
        say(f"{what} …")
    with waiting(what):
        yield


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Spinner on a terminal, for what nobody else has to be told."""
    if not _watched():
        yield
        return
    from iftplan.report.table import printable
    from iftplan.report.terminal import spell

    text = f"{printable(what)} …"
    sys.stderr.write(spell(text, sys.stderr.encoding))  # rich takes a while to import itself
    sys.stderr.flush()
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    sys.stderr.write("\n" if console.is_dumb_terminal else "\r")
    with console.status(Text(text)):
        yield


def _watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
