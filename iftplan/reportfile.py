"""Audit reports as documents: the keys that scripts and CI read."""

from __future__ import annotations

from iftplan.audits import AuditReport
from iftplan.documents import Document, sealed
from iftplan.units import Convention, exact

SCHEMA = "iftplan.audit/1"


def audit_document(report: AuditReport, convention: Convention = Convention.MAC) -> Document:
    """The report as a JSON object, sealed with its digest; counts in the convention named inside."""
    per = convention.per_mac

    def counted(macs: int | None) -> int | None:
        return None if macs is None else macs * per

    return sealed(
        {
            "schema": SCHEMA,
            "convention": convention.value,
            "subject": report.subject,
            "reference": report.reference or None,
            "scope": report.scope.value,
            "tolerance": float(report.tolerance),
            "tolerance_exact": exact(report.tolerance),
            "verdict": report.verdict.value,
            "passed": report.passed,
            "problems": list(report.problems),
            "dense_macs": counted(report.dense_macs),
            "expected_macs": counted(report.expected_macs),
            "measured_macs": counted(report.measured_macs),
            "ratio": None if report.ratio is None else float(report.ratio),
            "ratio_exact": None if report.ratio is None else exact(report.ratio),
            "deviation": None if report.deviation is None else float(report.deviation),
            "deviation_exact": None if report.deviation is None else exact(report.deviation),
            "counters": {name: macs * per for name, macs in report.counters.items()},
            "elementwise": dict(report.elementwise),
            "unknown_ops": dict(report.unknown_ops),
            "uncalled_modules": list(report.uncalled_modules),
            "assumptions": list(report.assumptions),
            "layers": [
                {
                    "name": layer.name,
                    "expected_macs": counted(layer.expected_macs),
                    "measured_macs": counted(layer.measured_macs),
                    "agrees": layer.agrees,
                }
                for layer in report.layers
            ],
        }
    )
