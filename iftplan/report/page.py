"""One value behind every report that leaves the terminal: what was judged, how it ended, and the layers behind it.

Markdown, HTML, JUnit, annotations and SARIF are written from this value alone, so they cannot tell different
stories. Names in it come from strangers and are not escaped: each format escapes them in its own way.
"""

from __future__ import annotations

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
class Section:
    """One subject of a report.

    Attributes:
        subject: what was measured or compared.
        outcome: how it ended.
        headline: the change or the cost in a short line, without the subject.
        figures: what an overview of several sections shows in columns, as heading and value.
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
    figures: tuple[tuple[str, str], ...] = ()
    summary: tuple[tuple[str, str], ...] = ()
    layers: Table = NO_LAYERS
    shares: tuple[TreemapLayer, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    place: Place | None = None


_NAMED = 3
"""Sections that a headline names."""


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
            return f"{len(self.sections)} models passed"
        names = ", ".join(section.subject for section in refused[:_NAMED])
        more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        return f"{len(refused)} of {len(self.sections)} models refused: {names}{more}"

    @property
    def overview(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Headings and a row a section, for pages of several: its figures, and its headline where it has none."""
        headings = tuple(dict.fromkeys(heading for s in self.sections for heading, _ in s.figures))
        rows = tuple(
            (*(dict(s.figures).get(heading, "") for heading in headings), _told(s)) for s in self.sections
        )
        return (*headings, ""), rows


def _told(section: Section) -> str:
    """What the figures do not say already."""
    return section.headline if section.outcome.refuses or not section.figures else ""
