"""One value behind every report that leaves the terminal: what was judged, how it ended, and the layers behind it.

Markdown, HTML, JUnit, annotations and SARIF are written from this value alone, so they cannot tell different
stories. Names in it come from strangers and are not escaped: each format escapes them in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from iftplan.report.table import Table


class SectionStatus(StrEnum):
    """Outcome of a section; whatever was not measured is no pass."""

    REPORTED = "reported"
    PASSED = "passed"
    UNMEASURED = "could not measure"
    STALE = "stale plan"
    INVALID = "bad input"
    FAILED = "failed"

    @property
    def refuses(self) -> bool:
        """Whether a gate must not let this through."""
        return self not in (SectionStatus.REPORTED, SectionStatus.PASSED)


class Rule(StrEnum):
    """Rule that a finding breaks; the names that SARIF and annotations show."""

    COST = "cost"
    UNKNOWN_OPERATOR = "unknown-operator"
    UNCALLED_MODULE = "uncalled-module"
    UNMEASURABLE = "unmeasurable"
    CONFIGURATION = "configuration"
    STALE_PLAN = "stale-plan"

    @property
    def meaning(self) -> str:
        """One sentence for people who see the rule for the first time."""
        return _MEANINGS[self]


_MEANINGS = {
    Rule.COST: "The model does not cost what its budget, baseline, plan or reference says.",
    Rule.UNKNOWN_OPERATOR: "An operator has no formula, so the model's cost is not known.",
    Rule.UNCALLED_MODULE: "A module holds weights that the measured pass never used.",
    Rule.UNMEASURABLE: "The model could not be built or run, so its cost is not known.",
    Rule.CONFIGURATION: "The check could not be made as it was configured.",
    Rule.STALE_PLAN: "The model is no longer the one that its plan was made for.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in a sentence; `layer` names where, if it is one place."""

    rule: Rule
    message: str
    layer: str = ""


@dataclass(frozen=True, slots=True)
class TreemapLayer:
    """One layer's part of the whole, for drawing: its MACs now, and what they were (None where nothing is compared)."""

    name: str
    macs: int
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """File and line in the repository that a message belongs to."""

    file: str
    line: int = 1


NO_LAYERS = Table((), ())


@dataclass(frozen=True, slots=True)
class Total:
    """One quantity of a section in an overview: a row.

    Attributes:
        outcome: how this quantity ended, which may be better than its section.
        cells: heading and value; a heading that begins with ">" is set flush right, without the sign.
    """

    outcome: SectionStatus
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One subject of a report.

    Attributes:
        subject: what was measured or compared.
        outcome: how it ended.
        headline: the change or the cost in a short line, without the subject.
        totals: the rows of an overview, a quantity each.
        reason: what is to be said beside totals and layers; where it is empty, the findings are.
        changed: whether the cost is another than before.
        summary: totals, as name and value.
        layers: the layer table, biggest contribution first.
        shares: the layers for drawing, all of them.
        findings: what is wrong.
        notes: what had to be assumed.
        place: the file that annotations point to.
    """

    subject: str
    outcome: SectionStatus
    headline: str
    totals: tuple[Total, ...] = ()
    reason: str = ""
    changed: bool = False
    summary: tuple[tuple[str, str], ...] = ()
    layers: Table = NO_LAYERS
    shares: tuple[TreemapLayer, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    place: Place | None = None

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences that say why it did not pass."""
        return (self.reason,) if self.reason else tuple(finding.message for finding in self.findings)


_NAMED = 3
"""Sections that a headline names."""


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """A row of an overview: of which section, whether it is its first, how it ended, and its cells."""

    section: Section
    first: bool
    outcome: SectionStatus
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A report: its title, its sections in the order in which they were asked for, and notes about the whole."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> SectionStatus:
        """The weightiest of the sections' outcomes: a certain no outranks what could not be told."""
        order = list(SectionStatus)
        return max((s.outcome for s in self.sections), key=order.index, default=SectionStatus.REPORTED)

    @property
    def headline(self) -> str:
        """The one line that is read first."""
        if len(self.sections) == 1:
            return f"{self.sections[0].subject}: {self.sections[0].headline}"
        refused = [s for s in self.sections if s.outcome.refuses]
        if not refused:
            changed = [s for s in self.sections if s.changed]
            told = f"; the cost of {_names(changed)} changed" if changed else ""
            return f"{len(self.sections)} models pass{told}"
        verb = "fails" if len(refused) == 1 else "fail"
        return f"{len(refused)} of {len(self.sections)} models {verb}: {_names(refused)}"

    @property
    def worst_first(self) -> tuple[Section, ...]:
        """Sections that a reader has to do something about, then the others."""
        return tuple(sorted(self.sections, key=lambda section: not section.outcome.refuses))

    @property
    def overview(self) -> tuple[tuple[str, ...], tuple[OverviewRow, ...]]:
        """Columns, as tables have them, and rows: every quantity of every section; none for a page without totals."""
        if not any(section.totals for section in self.sections):
            return (), ()
        totals = [
            (section, number, total)
            for section in self.sections
            for number, total in enumerate(section.totals or (Total(section.outcome, ()),))
        ]
        columns = tuple(dict.fromkeys(heading for *_, total in totals for heading, _ in total.cells))
        rows = (
            OverviewRow(
                section, not number, total.outcome, tuple(dict(total.cells).get(c, "") for c in columns)
            )
            for section, number, total in totals
        )
        return columns, tuple(rows)


def _names(sections: Sequence[Section]) -> str:
    named = ", ".join(section.subject for section in sections[:_NAMED])
    return f"{named} and {len(sections) - _NAMED} more" if len(sections) > _NAMED else named
