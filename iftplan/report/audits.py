"""Audit reports for people."""

from __future__ import annotations

from iftplan.audits import AuditReport, Verdict, unmeasured
from iftplan.report.table import Table
from iftplan.units import Convention, count, decimal, short


def audit_table(report: AuditReport, convention: Convention = Convention.MAC) -> Table:
    """Layer by layer, expected against measured."""
    per, unit = convention.per_mac, convention.unit
    expects = report.expected_macs is not None and not report.at_most
    rows: list[tuple[str, ...]] = []
    for layer in report.layers:
        measured = "not seen" if layer.measured_macs is None else count(layer.measured_macs * per)
        if expects:
            expected = "" if layer.expected_macs is None else count(layer.expected_macs * per)
            rows.append((layer.name, expected, measured, "" if layer.agrees else "differs"))
        else:
            rows.append((layer.name, measured))
    columns = (
        ("layer", f">expected {unit}", f">measured {unit}", "") if expects else ("layer", f">measured {unit}")
    )
    title = report.subject + (f" against {report.reference}" if report.reference else "")
    return Table(columns, tuple(rows), title)


def summary_table(report: AuditReport, convention: Convention = Convention.MAC) -> Table:
    """The totals, the engines' opinions, the verdict and why."""
    per, unit = convention.per_mac, convention.unit
    rows = []
    if report.dense_macs is not None:
        rows.append((f"dense, scope {report.scope}", f"{count(report.dense_macs * per)} {unit}"))
    if report.expected_macs is not None:
        rows.append(
            ("at most" if report.at_most else "expected", f"{count(report.expected_macs * per)} {unit}")
        )
    rows.append(("measured", f"{count(report.measured_macs * per)} {unit}"))
    if report.ratio is not None:
        rows.append((f"ratio to dense, scope {report.scope}", decimal(report.ratio)))
    if report.deviation is not None:
        rows.append(
            (
                "deviation from expected",
                f"{float(report.deviation):+.3e} (tolerance {float(report.tolerance):.3g})",
            )
        )
    rows += [
        (f"counter {name}, scope model", f"{count(macs * per)} {unit}")
        for name, macs in report.counters.items()
    ]
    other = sum(report.elementwise.values())
    if other:
        rows.append(("elementwise work, not in the MACs", f"{short(other)} output elements"))
    notes = (*report.problems, *unmeasured(report), *(f"assumed: {a}" for a in report.assumptions))
    verdict = report.verdict
    word = {Verdict.PASSED: "PASSED", Verdict.FAILED: "FAILED", Verdict.UNMEASURED: "COULD NOT MEASURE"}.get(
        verdict
    )
    return Table(("", ">"), tuple(rows), notes=((word,) if word else ()) + notes)
