"""Audit reports and differences for people."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from iftplan.base.units import Convention, abbreviate, count, decimal, percent, share, with_sign
from iftplan.models.counting import uncalled_sentence, unknown_sentence
from iftplan.plans.audit.audit import AuditedLayer, AuditReport, Verdict, unmeasured_sentences
from iftplan.plans.audit.diff import Diff
from iftplan.plans.audit.effective import EffectiveCost, effective_unit
from iftplan.report.page import Finding, Page, Place, Rule, Section, SectionStatus, TreemapLayer
from iftplan.report.table import Table

_OUTCOMES = {
    Verdict.PASSED: SectionStatus.PASSED,
    Verdict.FAILED: SectionStatus.FAILED,
    Verdict.UNMEASURED: SectionStatus.UNMEASURED,
    Verdict.REPORTED: SectionStatus.REPORTED,
}


def audit_table(report: AuditReport, convention: Convention = Convention.MAC) -> Table:
    """Layer by layer, expected against measured."""
    per, unit = convention.per_mac, convention.unit
    expects = report.expected_macs is not None and not report.at_most
    rows: list[tuple[str, ...]] = []
    cells: tuple[str, ...]
    shows = report.effective is not None
    for layer in report.layers:
        measured = "not seen" if layer.measured_macs is None else count(layer.measured_macs * per)
        if expects:
            expected = "" if layer.expected_macs is None else count(layer.expected_macs * per)
            cells = (layer.name, expected, measured, "" if layer.agrees else "differs")
        else:
            cells = (layer.name, measured)
        rows.append((*cells, *(_activity_cells(layer, per) if shows else ())))
    columns: tuple[str, ...] = (
        ("layer", f">expected {unit}", f">measured {unit}", "") if expects else ("layer", f">measured {unit}")
    )
    if shows:
        columns = (*columns, f">{effective_unit(convention)}", ">non-zero inputs")
    title = report.subject + (f" against {report.reference}" if report.reference else "")
    return Table(columns, tuple(rows), title)


def _activity_cells(layer: AuditedLayer, per: int) -> tuple[str, str]:
    """What data have shown of a layer; nothing where it was not looked into."""
    effective, ratio = layer.effective_macs, layer.activation_ratio
    return "" if effective is None else count(effective * per), "" if ratio is None else share(ratio)


def _effective_rows(effective: EffectiveCost, convention: Convention) -> list[tuple[str, str]]:
    """What data have shown of the whole model."""
    per, unit = convention.per_mac, effective_unit(convention)
    where = f"effective on {count(effective.samples)} samples of {effective.data}, scope model"
    if effective.macs is None or effective.share is None:
        rows = [(where, "not known")]
    else:
        rows = [
            (where, f"{count(effective.macs * per)} {unit}"),
            ("effective to static", f"{decimal(effective.share)}"),
        ]
    if effective.budget_macs is not None:
        rows.append(("effective at most", f"{count(effective.budget_macs * per)} {unit}"))
    if effective.selection != "zeros":
        rows.append(("inputs left out by", effective.selection))
    if effective.loss is not None:
        rows.append(("loss on these samples", f"{effective.loss:.4f} nats"))
    return rows


def summary_table(report: AuditReport, convention: Convention = Convention.MAC) -> Table:
    """Table of totals, the engines' counts, the verdict and its reasons."""
    per, unit = convention.per_mac, convention.unit
    rows = []
    if report.dense_macs is not None:
        rows.append((f"dense, scope {report.scope_name}", f"{count(report.dense_macs * per)} {unit}"))
    if report.expected_macs is not None:
        rows.append(
            ("at most" if report.at_most else "expected", f"{count(report.expected_macs * per)} {unit}")
        )
    if report.budget_macs is not None:
        rows.append((f"budget, scope {report.scope_name}", f"{count(report.budget_macs * per)} {unit}"))
    rows.append(("measured", f"{count(report.measured_macs * per)} {unit}"))
    if report.full_macs is not None:
        rows.append(("measured, attention in full", f"{count(report.full_macs * per)} {unit}"))
    if report.ratio is not None:
        rows.append((f"ratio to dense, scope {report.scope_name}", decimal(report.ratio)))
    if report.budget_ratio is not None:
        rows.append((f"ratio to budget, scope {report.scope_name}", decimal(report.budget_ratio)))
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
        rows.append(("elementwise work, not in the MACs", f"{abbreviate(other)} output elements"))
    if report.effective is not None:
        rows += _effective_rows(report.effective, convention)
    notes = (
        *report.problems,
        *unmeasured_sentences(report),
        *(f"assumed: {a}" for a in report.assumptions),
        *report.notes,
    )
    verdict = report.verdict
    word = {Verdict.PASSED: "PASSED", Verdict.FAILED: "FAILED", Verdict.UNMEASURED: "COULD NOT MEASURE"}.get(
        verdict
    )
    return Table(("", ">"), tuple(rows), notes=((word,) if word else ()) + notes)


def audit_page(
    report: AuditReport, convention: Convention = Convention.MAC, place: Place | None = None
) -> Page:
    """The report as a page with one section.

    Args:
        report: of the audit.
        convention: the unit of counts.
        place: file and line that the findings belong to; None for none.
    """
    return Page("iftplan audit", (audit_section(report, convention, place),))


def audit_section(
    report: AuditReport, convention: Convention = Convention.MAC, place: Place | None = None
) -> Section:
    """The report as a section of a page: headline, findings, totals, and layers by their cost.

    Args:
        report: of the audit.
        convention: the unit of counts.
        place: file and line that the findings belong to; None for none.
    """
    per = convention.per_mac
    return Section(
        subject=report.subject,
        outcome=_OUTCOMES[report.verdict],
        headline=_short_headline(report, convention),
        summary=tuple((row[0], row[1]) for row in summary_table(report, convention).rows),
        layers=layers_by_cost(report, convention),
        shares=tuple(
            TreemapLayer(
                layer.name,
                (layer.measured_macs or 0) * per,
                None if layer.expected_macs is None else layer.expected_macs * per,
            )
            for layer in report.layers
        ),
        findings=audit_findings(report),
        notes=(*(f"assumed: {assumption}" for assumption in report.assumptions), *report.notes),
        place=place,
    )


def _short_headline(report: AuditReport, convention: Convention) -> str:
    """What a reader wants first; the summary has the counts."""
    if report.deviation is None or report.verdict is Verdict.UNMEASURED:
        return audit_headline(report, convention)
    if not report.deviation:
        return f"as many {convention.unit} as {report.reference} says"
    return f"{percent(report.deviation)} {convention.unit} against {report.reference}"


def audit_headline(report: AuditReport, convention: Convention = Convention.MAC) -> str:
    """Measured count, and its difference from the expected one."""
    if report.verdict is Verdict.UNMEASURED:
        return "could not be measured"
    measured = f"{count(report.measured_macs * convention.per_mac)} {convention.unit}"
    if report.deviation is None or report.expected_macs is None:
        return measured
    off = with_sign((report.measured_macs - report.expected_macs) * convention.per_mac)
    return f"{measured}, {off} ({percent(report.deviation)})"


def audit_findings(report: AuditReport) -> tuple[Finding, ...]:
    """Findings of an audit, each with its rule; every unmeasured operator or module is one of its own."""
    return (
        *(Finding(Rule.COST, problem) for problem in report.problems),
        *(Finding(Rule.UNKNOWN_OPERATOR, unknown_sentence(n, c), n) for n, c in report.unknown_ops.items()),
        *(Finding(Rule.UNCALLED_MODULE, uncalled_sentence(m), m) for m in report.uncalled_modules),
    )


def layers_by_cost(report: AuditReport, convention: Convention) -> Table:
    """The layers, the largest difference first, then the most expensive."""
    per, unit = convention.per_mac, convention.unit
    compares = any(layer.expected_macs is not None for layer in report.layers)
    ordered = sorted(report.layers, key=lambda layer: (-_off(layer), -(layer.measured_macs or 0)))
    whole = sum(layer.measured_macs or 0 for layer in report.layers) or 1
    rows = []
    for layer in ordered:
        macs = layer.measured_macs
        cells = ["not seen" if macs is None else count(macs * per), f"{(macs or 0) / whole:.2%}"]
        if compares:
            expected = layer.expected_macs
            difference = with_sign(((macs or 0) - (expected or 0)) * per) if not layer.agrees else ""
            cells = ["" if expected is None else count(expected * per), *cells, difference]
        rows.append((layer.name, *cells))
    middle = (f">expected {unit}",) if compares else ()
    end = (">difference",) if compares else ()
    return Table(("layer", *middle, f">measured {unit}", ">share", *end), tuple(rows))


def _off(layer: AuditedLayer) -> int:
    return 0 if layer.agrees else abs((layer.measured_macs or 0) - (layer.expected_macs or 0))


def diff_table(d: Diff, convention: Convention = Convention.MAC) -> Table:
    """The layers that changed, and the totals."""
    per, unit = convention.per_mac, convention.unit
    rows = tuple(
        (
            c.name,
            c.change.value,
            count(c.base_macs * per),
            count(c.head_macs * per),
            with_sign(c.difference * per),
        )
        for c in d.changes
    )
    columns = ("layer", "change", f">base {unit}", f">head {unit}", ">difference")
    ratio = f" (ratio {d.head.macs / d.base.macs:.6f})" if d.base.macs else ""
    total = f"{count(d.base.macs * per)} → {count(d.head.macs * per)} {unit}, {with_sign(d.difference * per)}{ratio}, scope model"
    return Table(columns, rows, f"{d.base.name} → {d.head.name}", (total,))


def diff_page(d: Diff, convention: Convention = Convention.MAC) -> Page:
    """The diff as a page for a pull request, biggest contribution first."""
    per, unit = convention.per_mac, convention.unit
    summary = (
        ("base", f"{d.base.name}: {count(d.base.macs * per)} {unit}"),
        ("head", f"{d.head.name}: {count(d.head.macs * per)} {unit}"),
        ("difference", change(d.base.macs, d.head.macs, convention)),
        ("layers that differ", count(len(d.changes))),
    )
    section = Section(
        subject=f"{d.base.name} → {d.head.name}",
        outcome=SectionStatus.REPORTED,
        headline=diff_headline(d, convention),
        summary=summary,
        layers=Table(diff_table(d, convention).columns, diff_table(d, convention).rows),
        shares=shares(d.base.layers, d.head.layers, per),
    )
    return Page("iftplan diff", (section,))


def diff_headline(d: Diff, convention: Convention = Convention.MAC) -> str:
    """Change of the total in one line."""
    if not d.changes:
        return f"no change, {count(d.head.macs * convention.per_mac)} {convention.unit}"
    if not d.difference:
        return f"{count(len(d.changes))} layers changed, and the total is the same"
    return change(d.base.macs, d.head.macs, convention)


def change(base: int, head: int, convention: Convention = Convention.MAC) -> str:
    """Change from one total to another: `+37 748 736 MACs (+6.8 %)`.

    Args:
        base: MACs before.
        head: MACs now.
        convention: the unit that is printed.
    """
    ratio = f" ({percent(Fraction(head - base, base))})" if base else ""
    return f"{with_sign((head - base) * convention.per_mac)} {convention.unit}{ratio}"


def shares(base: Mapping[str, int], head: Mapping[str, int], per: int) -> tuple[TreemapLayer, ...]:
    """Share of every layer of head in the whole, with what it was before; a new one was nothing.

    Args:
        base: layer → MACs before.
        head: layer → MACs now.
        per: counts for each MAC.
    """
    return tuple(TreemapLayer(name, macs * per, base.get(name, 0) * per) for name, macs in head.items())
