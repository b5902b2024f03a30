"""Markdown for a pull-request comment and a job summary: the headline first, the layers folded away.

Names come from strangers. Every character that could be markup is written as an entity, and an empty comment
keeps `@name` and `#1` from notifying anyone, which no backslash does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from iftplan.report.page import Page, Section, SectionStatus
from iftplan.report.table import Table, printable, without_breaks

MARKER = "<!-- iftplan report -->"
"""The first line, by which a later run finds its comment again."""

COMMENT_LIMIT = 65_536 - 1_536
"""Characters: GitHub refuses a comment of more than 65 536; the rest is left to whoever adds a line."""

_SIGNS = {
    SectionStatus.PASSED: "✅",
    SectionStatus.FAILED: "❌",
    SectionStatus.INVALID: "❌",
    SectionStatus.STALE: "❌",
    SectionStatus.UNMEASURED: "❔",
    SectionStatus.REPORTED: "📐",
}
_ENTITIES = {ord(c): f"&#{ord(c)};" for c in "&<>|`\\*_~[]$"}
_LINKED = re.compile(r":(?=//)|\bw(?=ww\.)", re.I)
_READ = 5  # rows, or notes, that are read without a click


def page_markdown(page: Page, limit: int = COMMENT_LIMIT) -> str:
    """The page, cut to `limit` characters by leaving out the layers that contribute least.

    Args:
        page: what is reported.
        limit: the most characters that come out.
    """
    rows = max((len(s.layers.rows) for s in page.sections), default=0)
    text = _written(page, rows)
    while len(text) > limit and rows:
        rows = min(rows - 1, rows * limit // len(text))
        text = _written(page, rows)
    if len(text) <= limit:
        return text
    return f"{text[: text[: limit - 80].rfind(chr(10))]}\n\n… and more; the full report has the rest.\n"


def code(text: str) -> str:
    """A name that cannot become markup, a mention or a reference."""
    return f"<code>{_inert(text)}</code>"


def escape(text: str) -> str:
    """Text in one line that cannot become markup, a mention or a reference."""
    return (
        without_breaks(_inert(text))
        .replace("@", "@<!-- -->")
        .replace("#", "#<!-- -->")
        .replace("&#<!-- -->", "&#")
    )


def _inert(text: str) -> str:
    line = " ".join(printable(text.replace("\n", " ")).split()).translate(_ENTITIES)
    return _LINKED.sub(lambda match: f"&#{ord(match[0])};", line)


def _written(page: Page, rows: int) -> str:
    parts = [MARKER, f"### {_SIGNS[page.outcome]} {escape(page.headline)}"]
    overview = _overview(page)
    if overview:
        parts.append(overview)
    for section in page.worst_first:
        if overview and not section.outcome.refuses:
            parts += _passed(section, rows)
        else:
            parts += _section(section, rows, titled=len(page.sections) > 1, summed=bool(overview))
    parts += _notes(page)
    return "\n\n".join(parts) + "\n"


def _notes(page: Page) -> Iterator[str]:
    """Everything that had to be assumed, at the end."""
    named = len(page.sections) > 1
    notes = [f"{s.subject}: {note}" if named else note for s in page.sections for note in s.notes]
    notes += page.notes
    if notes:
        text = _sentences(notes)
        yield _folded(f"{len(notes)} notes", text) if len(notes) > _READ else text


def _overview(page: Page) -> str:
    columns, rows = page.overview
    if not columns:
        return ""
    lines = [_line("", "model", *map(escape, _headings(columns))), _line("---", "---", *_rules(columns))]
    for row in rows:
        name = code(row.section.subject) if row.first else ""
        shown = (
            map(_cell, columns, row.cells) if any(row.cells) else (escape(row.outcome.value), *row.cells[1:])
        )
        lines.append(_line(_SIGNS[row.outcome], name, *shown))
    return "\n".join(lines)


def _section(section: Section, rows: int, *, titled: bool, summed: bool) -> Iterator[str]:
    """Why it did not pass, totals where no overview has them, and layers."""
    if titled:
        yield f"#### {_SIGNS[section.outcome]} {code(section.subject)}"
    if messages := [m for m in section.messages if titled or m != section.headline]:
        yield _sentences(messages)
    if section.summary and not summed:
        yield _pipe(("", ">"), section.summary)
    if section.layers.rows and rows:
        yield from _layers(section.layers, rows)


def _passed(section: Section, rows: int) -> Iterator[str]:
    """A model that passes has its totals above; what changed in it is folded away."""
    if section.changed and section.layers.rows and rows:
        yield _folded(f"{code(section.subject)}: what changed, layer by layer", _table(section.layers, rows))


def _layers(table: Table, most: int) -> Iterator[str]:
    """The first layers, then the others folded away."""
    first = min(_READ, most)
    yield _pipe(table.columns, table.rows[:first])
    rest = Table(table.columns, table.rows[first:])
    if rest.rows:
        yield _folded(f"{len(rest.rows)} more layers", _table(rest, most - first))


def _table(table: Table, most: int) -> str:
    left = len(table.rows) - most
    more = f"\n\n… and {left} more layers; the full report has them." if left > 0 else ""
    return _pipe(table.columns, table.rows[:most]) + more


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _sentences(sentences: Sequence[str]) -> str:
    """One as it is, several as a list; what begins with a sign or a digit could be other markup alone."""
    sign = "" if len(sentences) == 1 and sentences[0][:1].isalpha() else "- "
    return "\n".join(f"{sign}{escape(sentence)}" for sentence in sentences)


def _pipe(columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A pipe table whose first column holds names."""
    lines = [_line(*map(escape, _headings(columns))), _line(*_rules(columns))]
    for name, *cells in rows:
        first = code(name) if columns[0] else escape(name)
        lines.append(_line(first, *map(_cell, columns[1:], cells)))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _headings(columns: Sequence[str]) -> list[str]:
    return [column.removeprefix(">") for column in columns]


def _rules(columns: Sequence[str]) -> list[str]:
    return ["---:" if column.startswith(">") else "---" for column in columns]


def _cell(column: str, text: str) -> str:
    """A cell; what is set flush right is a number, which no line break divides."""
    return escape(text).replace(" ", "\u00a0") if column.startswith(">") else escape(text)
