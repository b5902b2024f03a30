"""Audit reports as documents: the keys that scripts and CI read."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document, check, duplicate_name, with_digest
from iftplan.base.errors import InputError
from iftplan.base.units import Convention, fraction, parse_fraction, parse_tolerance
from iftplan.base.validation import validate
from iftplan.plans.audit.audit import AuditedLayer, AuditReport
from iftplan.plans.audit.effective import EffectiveCost, effective_convention
from iftplan.plans.plan import Scope

SCHEMA = "iftplan.audit/1"


def audit_document(report: AuditReport, convention: Convention = Convention.MAC) -> Document:
    """The report as a JSON object, sealed with its digest; counts in the convention named inside."""
    per = convention.per_mac

    def counted(macs: int | None) -> int | None:
        return None if macs is None else macs * per

    return with_digest(
        {
            "schema": SCHEMA,
            "convention": convention.value,
            "subject": report.subject,
            "reference": report.reference or None,
            "scope": report.scope.value,
            **({"within": report.within} if report.within else {}),
            "tolerance": float(report.tolerance),
            "tolerance_exact": fraction(report.tolerance),
            "verdict": report.verdict.value,
            "passed": report.passed,
            "problems": list(report.problems),
            "dense_macs": counted(report.dense_macs),
            "expected_macs": counted(report.expected_macs),
            **({"at_most": True} if report.at_most else {}),
            **({"budget_macs": counted(report.budget_macs)} if report.budget_macs else {}),
            "measured_macs": counted(report.measured_macs),
            **(
                {
                    "attention": {
                        "convention": "pairs",
                        "pattern": report.attention,
                        "measured_full": counted(report.full_macs),
                    }
                }
                if report.attention
                else {}
            ),
            "ratio": None if report.ratio is None else float(report.ratio),
            "ratio_exact": None if report.ratio is None else fraction(report.ratio),
            "deviation": None if report.deviation is None else float(report.deviation),
            "deviation_exact": None if report.deviation is None else fraction(report.deviation),
            "counters": {name: macs * per for name, macs in report.counters.items()},
            "elementwise": dict(report.elementwise),
            "unknown_ops": dict(report.unknown_ops),
            "uncalled_modules": list(report.uncalled_modules),
            "assumptions": list(report.assumptions),
            **({"notes": list(report.notes)} if report.notes else {}),
            "layers": [
                {
                    "name": layer.name,
                    "expected_macs": counted(layer.expected_macs),
                    "measured_macs": counted(layer.measured_macs),
                    "agrees": layer.agrees,
                    **(_activity(layer, per) if report.effective else {}),
                }
                for layer in report.layers
            ],
            **({"effective": _effective(report.effective, convention)} if report.effective else {}),
        }
    )


def _activity(layer: AuditedLayer, per: int) -> Document:
    """What data have shown of a layer."""
    ratio = layer.activation_ratio
    return {
        "effective_macs": None if layer.effective_macs is None else layer.effective_macs * per,
        "activation_ratio": None if ratio is None else float(ratio),
        "activation_ratio_exact": None if ratio is None else fraction(ratio),
    }


def _effective(effective: EffectiveCost, convention: Convention) -> Document:
    """What data have shown of the whole, in a convention of its own name."""
    per, share = convention.per_mac, effective.share
    return {
        "convention": effective_convention(convention),
        "data": effective.data,
        "samples": effective.samples,
        "selection": effective.selection,
        "loss": effective.loss,
        "static_macs": effective.static_macs * per,
        "effective_macs": None if effective.macs is None else effective.macs * per,
        "share": None if share is None else float(share),
        "share_exact": None if share is None else fraction(share),
        **({} if effective.budget_macs is None else {"budget_macs": effective.budget_macs * per}),
    }


def parse_report(document: Document, where: str = "report") -> AuditReport:
    """The report in a document of this program's own, that nobody else can have written.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    return _report(validate(_ReportObject, document, where))


def parse_measured(document: Document, where: str = "report") -> tuple[str, dict[str, int]]:
    """The subject of a report and its measured MACs by layer, whatever convention it was written in.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    parsed = validate(_ReportObject, document, where)
    for problem in _contradictions(parsed):
        raise InputError(f"{where}: {problem}; audit again rather than editing it.")
    again = audit_document(_report(parsed), parsed["convention"])
    for key, value in again.items():
        if key != "digest" and document[key] != value:
            raise InputError(
                f"{where}: {key} does not follow from the rest of the report; audit again rather than editing it."
            )
    per = parsed["convention"].per_mac
    return parsed["subject"], {row["name"]: (row["measured_macs"] or 0) // per for row in parsed["layers"]}


def _contradictions(parsed: _ReportObject) -> Iterator[str]:
    """What one part of a report says and another denies: sentences that begin with the place."""
    totals: dict[str, int | None] = {
        "dense_macs": parsed["dense_macs"],
        "expected_macs": parsed["expected_macs"],
        "measured_macs": parsed["measured_macs"],
    }
    if "attention" in parsed:
        totals["attention.measured_full"] = parsed["attention"]["measured_full"]
    rows = {
        f"layers.{i}.{key}": row[key]
        for i, row in enumerate(parsed["layers"])
        for key in ("expected_macs", "measured_macs")
    }
    counters = {f"counters.{engine}": macs for engine, macs in parsed["counters"].items()}
    others = {f"elementwise.{name}": n for name, n in parsed["elementwise"].items()}
    calls = {f"unknown_ops.{name}": n for name, n in parsed["unknown_ops"].items()}
    if (budget := parsed.get("budget_macs")) is not None:
        totals["budget_macs"] = budget
    per = parsed["convention"].per_mac
    for place, value in {**totals, **rows, **counters, **others, **calls}.items():
        if value is not None and value < 0:
            yield f"{place} is {value}; a count cannot be negative"
    for place, value in {**totals, **rows, **counters}.items():
        if value is not None and value % per:
            yield f"{place} is {value}; it must be even, because a MAC is two FLOPs"
    yield from duplicate_name("layers", (row["name"] for row in parsed["layers"]))
    total = sum(row["measured_macs"] or 0 for row in parsed["layers"])
    measured = parsed["measured_macs"]
    if measured > total or (parsed["scope"] == Scope.MODEL.value and measured < total):
        yield f"measured_macs is {measured}, but the layers add up to {total}"


def _report(parsed: _ReportObject) -> AuditReport:
    """The report as a value, from all that is not worked out."""
    per = parsed["convention"].per_mac

    def macs(counted: int | None) -> int | None:
        return None if counted is None else counted // per

    return AuditReport(
        parsed["subject"],
        parsed["reference"] or "",
        Scope(parsed["scope"]),
        parse_tolerance(parsed["tolerance_exact"]),
        macs(parsed["dense_macs"]),
        macs(parsed["expected_macs"]),
        parsed["measured_macs"] // per,
        {engine: count // per for engine, count in parsed["counters"].items()},
        tuple(
            AuditedLayer(
                row["name"],
                macs(row["expected_macs"]),
                macs(row["measured_macs"]),
                macs(row.get("effective_macs")),
                _ratio(row.get("activation_ratio_exact")),
            )
            for row in parsed["layers"]
        ),
        parsed["elementwise"],
        parsed["unknown_ops"],
        tuple(parsed["uncalled_modules"]),
        tuple(parsed["assumptions"]),
        tuple(parsed["problems"]),
        within=parsed.get("within", ""),
        at_most=parsed.get("at_most", False),
        budget_macs=macs(parsed.get("budget_macs")),
        effective=_effective_cost(parsed["effective"], per) if "effective" in parsed else None,
        attention=parsed["attention"]["pattern"] if "attention" in parsed else "",
        full_macs=macs(parsed["attention"]["measured_full"]) if "attention" in parsed else None,
        notes=tuple(parsed.get("notes", ())),
    )


def _effective_cost(parsed: _EffectiveObject, per: int) -> EffectiveCost:
    macs, budget = parsed["effective_macs"], parsed.get("budget_macs")
    return EffectiveCost(
        parsed["data"],
        parsed["samples"],
        parsed["selection"],
        parsed["static_macs"] // per,
        None if macs is None else macs // per,
        parsed["loss"],
        None if budget is None else budget // per,
    )


def _ratio(text: str | None) -> Fraction | None:
    return None if text is None else parse_fraction(text, "activation_ratio_exact")


@with_config(ConfigDict(extra="forbid"))
class _LayerObject(TypedDict):
    """One layer of an audit.

    Attributes:
        name: the module's path, with the operator where it is a product of activations.
        expected_macs: what the plan or the reference says; null without one.
        measured_macs: what was counted; null where nothing was.
        agrees: whether the two are equal within the tolerance.
        effective_macs: of the measured MACs those whose activation was not zero on the data; absent without data, null
            where a product was not looked into.
        activation_ratio: share of the layer's inputs that were not zero on the data; likewise.
    """

    name: str
    expected_macs: int | None
    measured_macs: int | None
    agrees: bool
    effective_macs: NotRequired[int | None]
    activation_ratio: NotRequired[float | None]
    activation_ratio_exact: NotRequired[str | None]


@with_config(ConfigDict(extra="forbid"))
class _EffectiveObject(TypedDict):
    """What data have shown of an audited model.

    Attributes:
        convention: what effective counts are in, a name that static counts never have.
        data: name of the data.
        samples: how many samples were looked at.
        selection: rule by which inputs were set to zero; "zeros" for none.
        loss: mean cross entropy on the data, in nats; null without targets.
        static_macs: MACs of the whole model, zeros included.
        effective_macs: of them those whose activation was not zero, products that were not looked into in full; null with
            operators of unknown cost.
        share: effective to static.
        budget_macs: the most effective MACs that were asked for; absent where none were.
    """

    convention: Literal["effective_mac", "effective_flop"]
    data: str
    samples: int
    selection: str
    loss: float | None
    static_macs: int
    effective_macs: int | None
    share: float | None
    share_exact: str | None
    budget_macs: NotRequired[int]


@with_config(ConfigDict(extra="forbid"))
class _AttentionObject(TypedDict):
    """How attention was counted, and the full count beside.

    Attributes:
        convention: pairs of a query and a key.
        pattern: the pattern of the plan.
        measured_full: what was counted in the compared scope with every query and every key.
    """

    convention: Literal["pairs"]
    pattern: str
    measured_full: int


@with_config(ConfigDict(extra="forbid"))
class _ReportObject(TypedDict):
    """An audit's report as it is written.

    Attributes:
        schema: kind and version.
        convention: what counts are in.
        subject: what was measured.
        reference: what it was held against; null without a plan, model or budget.
        scope: the scope that was compared.
        within: the module that a scope `module` is of; absent for the other scopes.
        tolerance: the largest relative difference that passes.
        verdict: how the audit came out, as a sentence.
        passed: whether it did.
        problems: why it did not pass, one sentence each.
        dense_macs: what the dense model costs in the compared scope; null where that is not known.
        expected_macs: what the reference allows or says; null without one.
        at_most: that expected MACs are a limit, below which everything passes; absent where they must be met.
        budget_macs: what the plan's own budget allows its scope; absent where that is the dense model's cost.
        measured_macs: what was counted.
        attention: the pattern by whose pairs attention is counted; absent where every query counts with every key.
        ratio: measured to dense.
        deviation: `measured/expected - 1`.
        counters: engine → what it counted, of the whole model.
        elementwise: operator → output elements, for work that contracts nothing.
        unknown_ops: operator → calls, for operators without a formula.
        uncalled_modules: modules with weights that the pass never used.
        assumptions: what had to be assumed, one sentence each.
        notes: why a counter that follows other rules differs, one sentence each; absent without such a counter.
        layers: a row for each layer.
        effective: what was measured on data; absent without data.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    convention: Convention
    subject: str
    reference: str | None
    scope: Scope
    within: NotRequired[str]
    tolerance: float
    tolerance_exact: str
    verdict: str
    passed: bool
    problems: list[str]
    dense_macs: int | None
    expected_macs: int | None
    at_most: NotRequired[bool]
    budget_macs: NotRequired[int]
    measured_macs: int
    attention: NotRequired[_AttentionObject]
    ratio: float | None
    ratio_exact: str | None
    deviation: float | None
    deviation_exact: str | None
    counters: dict[str, int]
    elementwise: dict[str, int]
    unknown_ops: dict[str, int]
    uncalled_modules: list[str]
    assumptions: list[str]
    notes: NotRequired[list[str]]
    layers: list[_LayerObject]
    effective: NotRequired[_EffectiveObject]
    digest: str
