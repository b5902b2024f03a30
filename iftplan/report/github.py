"""GitHub annotations: workflow commands, `::error file=…::message`, which a pull request shows beside the line.

Three escapes and a print: the packages that wrap them have not seen a release for years, so this is by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from iftplan.report.page import Finding, Page, Section, SectionStatus
from iftplan.report.table import printable

_MOST = 10  # errors that GitHub shows of one step


def page_annotations(page: Page) -> str:
    """One line for each finding, and one for a cost or a change that nobody judged; none where nothing is to be done."""
    lines = [line for section in page.sections for line in _section(section)]
    shown, left = lines[:_MOST], len(lines) - _MOST
    if left > 0:
        shown[-1] = (
            f"::error title=iftplan::{_data(f'and {left + 1} more findings; the report has them all')}"
        )
    return "".join(f"{line}\n" for line in shown)


def _section(section: Section) -> Iterator[str]:
    if section.outcome.refuses:
        yield from (_command("error", section, finding) for finding in section.findings)
    elif section.outcome is SectionStatus.REPORTED and section.layers.rows:
        yield _line("notice", section, "cost", f"{section.subject}: {section.headline}")


def _command(level: str, section: Section, finding: Finding) -> str:
    return _line(level, section, finding.rule.value, f"{section.subject}: {finding.message}")


def _line(level: str, section: Section, rule: str, message: str) -> str:
    place = section.place
    where = f"file={_property(place.file)},line={place.line}," if place else ""
    return f"::{level} {where}title={_property(f'iftplan: {rule}')}::{_data(message)}"


def _data(text: str) -> str:
    """No line break ends the command early, so that no name can begin one of its own."""
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
