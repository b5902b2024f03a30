"""SARIF 2.1.0 for code-scanning views: one result a finding, in the models of sarif-pydantic."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from iftplan.report.libraries import missing
from iftplan.report.page import Finding, Page, Rule, Section
from iftplan.report.table import printable

if TYPE_CHECKING:
    from sarif_pydantic import Location, Result

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def page_sarif(page: Page) -> str:
    """The page's findings as a SARIF log; without findings, a log without results.

    Raises:
        InputError: sarif-pydantic is not installed.
    """
    try:
        from sarif_pydantic import Message, ReportingDescriptor, Run, Sarif, Tool, ToolDriver
    except ImportError as error:
        raise missing("SARIF", "sarif-pydantic") from error
    rules = [
        ReportingDescriptor(id=rule.value, short_description=Message(text=rule.meaning)) for rule in Rule
    ]
    driver = ToolDriver(name="iftplan", version=version("iftplan"), rules=rules)
    results = [_result(section, finding) for section in page.sections for finding in section.findings]
    log = Sarif(version="2.1.0", schema_uri=_SCHEMA, runs=[Run(tool=Tool(driver=driver), results=results)])
    text: str = log.model_dump_json(by_alias=True, exclude_none=True, indent=2)
    return text + "\n"


def _result(section: Section, finding: Finding) -> Result:
    from sarif_pydantic import Level, Message, Result

    return Result(
        rule_id=finding.rule.value,
        level=Level.ERROR,
        message=Message(text=printable(f"{section.subject}: {finding.message}")),
        locations=[_location(section, finding)],
    )


def _location(section: Section, finding: Finding) -> Location:
    from sarif_pydantic import ArtifactLocation, Location, LogicalLocation, PhysicalLocation, Region

    name = printable(finding.layer or section.subject)
    place = section.place
    physical = place and PhysicalLocation(
        artifact_location=ArtifactLocation(uri=place.file), region=Region(start_line=place.line)
    )
    return Location(physical_location=physical, logical_locations=[LogicalLocation(name=name)])
