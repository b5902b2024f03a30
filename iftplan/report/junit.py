"""JUnit XML, which every CI system shows: one test case a subject, written by junitparser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iftplan.report.libraries import missing
from iftplan.report.page import Page, Section, SectionStatus
from iftplan.report.table import Table, printable
from iftplan.report.terminal import to_text

if TYPE_CHECKING:
    from junitparser import TestCase

_MOST_LAYERS = 50  # in a failure's text; the other formats have them all


def page_junit(page: Page) -> str:
    """The page as a JUnit document; what could not be measured is an error, not a failure.

    Raises:
        InputError: junitparser is not installed.
    """
    try:
        from junitparser import JUnitXml, TestSuite
    except ImportError as error:
        raise missing("JUnit XML", "junitparser") from error
    suite = TestSuite(page.title)
    for section in page.sections:
        suite.add_testcase(_case(page.title, section))
    document = JUnitXml()
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text.decode() + "\n"


def _case(title: str, section: Section) -> TestCase:
    from junitparser import Error, Failure, TestCase

    case = TestCase(printable(section.subject), classname=title)
    if not section.outcome.refuses:
        case.system_out = printable(section.headline)
        return case
    kind = Failure if section.outcome is SectionStatus.FAILED else Error
    result = kind(printable(section.headline), section.findings[0].rule.value if section.findings else None)
    result.text = _told(section)
    case.result = [result]
    return case


def _told(section: Section) -> str:
    layers = section.layers
    top = Table(layers.columns, layers.rows[:_MOST_LAYERS]) if layers.rows else None
    findings = "\n".join(printable(finding.message) for finding in section.findings)
    return f"{findings}\n\n{to_text(top) if top else ''}"
