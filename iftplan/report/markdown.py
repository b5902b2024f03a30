"""Markdown for a pull-request comment and a job summary: the headline first, the layers folded away.

Names come from strangers. Every character that could be markup is written as an entity, and an empty comment
keeps `@name` and `#1` from notifying anyone, which no backslash does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

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
_FOLDED_AFTER = 12  # rows of a table that are read without a click


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
    heading = f"### {_SIGNS[page.outcome]} {escape(page.headline)}"
    several = len(page.sections) > 1
    parts = [MARKER, heading]
    if several:
        parts.append(_overview(page))
    for section in page.sections:
        parts += _section(section, rows, titled=several)
    parts += (f"_{escape(note)}_" for note in page.notes)
    return "\n\n".join(parts) + "\n"


def _overview(page: Page) -> str:
    headings, figures = page.overview
    lines = [f"| | model | {' | '.join(map(escape, headings))} |", f"|---|---|{'---|' * len(headings)}"]
    for s, cells in zip(page.sections, figures, strict=True):
        told = " | ".join(map(escape, cells))
        lines.append(f"| {_SIGNS[s.outcome]} | {code(s.subject)} | {told} |")
    return "\n".join(lines)


def _section(section: Section, rows: int, *, titled: bool) -> Iterator[str]:
    if titled and not section.findings and section.outcome is SectionStatus.PASSED:
        return  # its line in the overview says everything
    if titled:
        yield f"#### {_SIGNS[section.outcome]} {code(section.subject)}"
    told = "" if titled else section.headline  # the heading has said it
    yield from (f"- {escape(f.message)}" for f in section.findings if f.message != told)
    if section.summary:
        yield _pipe(("", ">"), section.summary)
    if section.layers.rows and rows:
        yield _layers(section.layers, rows)
    yield from (f"_{escape(note)}_" for note in section.notes)


def _layers(table: Table, most: int) -> str:
    shown, left = table.rows[:most], len(table.rows) - most
    body = _pipe(table.columns, shown)
    more = f"\n\n… and {left} more layers; the full report has them." if left > 0 else ""
    if len(table.rows) <= _FOLDED_AFTER and table.columns[-1] == ">difference":
        return body + more  # what changed is short enough to be seen at once
    return f"<details><summary>{len(table.rows)} layers</summary>\n\n{body}{more}\n\n</details>"


def _pipe(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A pipe table whose first column holds names."""
    headings = list(columns)
    lines = [
        "| " + " | ".join(escape(h.removeprefix(">")) for h in headings) + " |",
        "|" + "|".join("---:" if h.startswith(">") else "---" for h in headings) + "|",
    ]
    named = bool(headings[0])
    for name, *cells in rows:
        first = code(name) if named else escape(name)
        lines.append("| " + " | ".join((first, *map(escape, cells))) + " |")
    return "\n".join(lines)
