"""Expected against measured: pure comparisons of count tables with plans, other tables and budgets.

Contraction MACs are what is gated. Work that contracts nothing stands on a line of its own, and whatever
could not be measured is a problem, never a zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from iftplan.base.arguments import names_in
from iftplan.base.errors import MeasureError
from iftplan.base.units import count, decimal, parse_count, percent
from iftplan.masks import AttentionPattern, parse_attention
from iftplan.models.counting import CountTable, cross_check, uncalled_sentence, unknown_sentence
from iftplan.plans.audit.effective import EffectiveCost
from iftplan.plans.plan import Plan, PlannedLayer, Role, Scope, scope_text
from iftplan.report.display import Displayed, Framed, Record

if TYPE_CHECKING:
    from iftplan.report.table import Table


PLAN_TOLERANCE = Fraction(1, 10**6)
"""The largest relative difference between a plan's ledger and what its layers measure."""


class Verdict(StrEnum):
    """Verdict of an audit."""

    PASSED = "passed"
    FAILED = "failed"
    UNMEASURED = "could not measure"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True)
class AuditedLayer:
    """MACs of one layer: expected (None without a reference) and measured (None if it was not seen).

    Attributes:
        name: of the module, with the operator where it is a product of activations.
        expected_macs: what the reference says.
        measured_macs: what was counted.
        effective_macs: of them those whose activation was not zero on data; None where that was not measured.
        activation_ratio: share of its inputs that were not zero on data; None likewise.
    """

    name: str
    expected_macs: int | None
    measured_macs: int | None
    effective_macs: int | None = None
    activation_ratio: Fraction | None = None

    @property
    def agrees(self) -> bool:
        """Whether both are known and equal, or nothing was expected."""
        return self.expected_macs is None or self.expected_macs == self.measured_macs


@dataclass(frozen=True, slots=True)
class AuditReport(Displayed, Framed):
    """Measured MACs and the reference that they are compared with.

    Attributes:
        subject: what was measured.
        reference: what it was held against; empty for a plain report.
        scope: whose MACs the totals are.
        within: modules that a scope `module` is of; empty for the other scopes.
        tolerance: the largest `|measured/expected - 1|` that passes; for a budget, the largest excess.
        dense_macs: MACs of the dense baseline, if there is one.
        expected_macs: MACs that the reference allows or predicts.
        measured_macs: contraction MACs, each weight's by its nonzeros.
        counters: engine → MACs of the same pass, sparsity applied alike.
        layers: layer by layer.
        elementwise: operator → output elements, for work that contracts nothing.
        unknown_ops: operator → calls, for operators without a formula that nobody allowed.
        uncalled_modules: modules with weights that the pass never used and nobody allowed.
        assumptions: what had to be assumed.
        problems: why it did not pass.
        at_most: whether only an excess fails (a budget), not a shortfall.
        attention: pattern by whose pairs attention is counted, in the dense model by those of its own mask; empty where
            every query counts with every key.
        full_macs: measured MACs of the scope with every query and every key; None where all counts are that.
        budget_macs: MACs that the plan's own budget allows its scope; None where that is the dense model's cost.
        disagreements: those of the problems that name where engines count differently; not in the document.
        effective: MACs that were effective on data, which are compared with nothing but a budget of their own; None where
            none were measured.
        notes: sentences on counters that follow other rules and are compared with nothing.
    """

    subject: str
    reference: str
    scope: Scope
    tolerance: Fraction
    dense_macs: int | None
    expected_macs: int | None
    measured_macs: int
    counters: Mapping[str, int]
    layers: tuple[AuditedLayer, ...] = ()
    elementwise: Mapping[str, int] = field(default_factory=dict)
    unknown_ops: Mapping[str, int] = field(default_factory=dict)
    uncalled_modules: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    at_most: bool = False
    disagreements: tuple[str, ...] = field(default=(), compare=False)
    within: str = ""
    budget_macs: int | None = None
    effective: EffectiveCost | None = None
    attention: str = ""
    full_macs: int | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        expected = "" if self.expected_macs is None else f" of {count(self.expected_macs)} expected"
        return f"<AuditReport {self.subject}: {self.verdict}, {count(self.measured_macs)} MACs measured{expected}, {len(self.layers)} layer{'s' * (len(self.layers) != 1)}>"

    def tables(self) -> tuple[Table, ...]:
        """The tables that show the value, the details first."""
        from iftplan.plans.audit.tables import audit_table, summary_table

        return (audit_table(self), summary_table(self))

    def records(self) -> Sequence[Record]:
        """A row for each layer, as in the report's document."""
        from iftplan.plans.audit.document import audit_document

        layers: Sequence[Record] = audit_document(self)["layers"]
        return layers

    @property
    def scope_name(self) -> str:
        """Name of the scope, with the module that it is of."""
        return scope_text(self.scope, self.within)

    @property
    def ratio(self) -> Fraction | None:
        """Ratio of measured to dense MACs."""
        return Fraction(self.measured_macs, self.dense_macs) if self.dense_macs else None

    @property
    def budget_ratio(self) -> Fraction | None:
        """Ratio of measured MACs to the plan's own budget; None where that is the dense model's cost."""
        return Fraction(self.measured_macs, self.budget_macs) if self.budget_macs else None

    @property
    def deviation(self) -> Fraction | None:
        """Relative difference `measured/expected - 1`."""
        return Fraction(self.measured_macs, self.expected_macs) - 1 if self.expected_macs else None

    @property
    def verdict(self) -> Verdict:
        """Whether the check passed, failed, or could not be made."""
        if self.unknown_ops or self.uncalled_modules:
            return Verdict.UNMEASURED
        if self.problems:
            return Verdict.FAILED
        return Verdict.REPORTED if self.expected_macs is None else Verdict.PASSED

    @property
    def passed(self) -> bool:
        """Whether nothing failed and everything was measured."""
        return self.verdict in (Verdict.PASSED, Verdict.REPORTED)

    def raise_if_failed(self) -> None:
        """Raise an error with what is wrong; nothing happens if the audit passed.

        Raises:
            MeasureError: the model could not be measured.
            AssertionError: names the problems.
        """
        if self.verdict is Verdict.UNMEASURED:
            raise MeasureError(" ".join(unmeasured_sentences(self)))
        if not self.passed:
            raise AssertionError(" ".join(self.problems))


def audit_plan(
    plan: Plan,
    tables: Sequence[CountTable],
    *,
    tolerance: Fraction = PLAN_TOLERANCE,
    may_stay_uncalled: Collection[str] = (),
    active: Mapping[str, Fraction] | None = None,
    redistributed: bool = False,
) -> AuditReport:
    """Report that compares the measured network of a plan with the plan's own MACs.

    Args:
        plan: the plan.
        tables: counts of the plan's structure with every weight present, one per engine; the first is the one
            that is compared layer by layer.
        tolerance: the largest relative difference that passes.
        may_stay_uncalled: modules that the pass need not use.
        active: parameter → share of its weights that its mask keeps, counted on a real network; None takes the
            plan's own counts.
        redistributed: whether weights moved between layers, so that only the total of the whole model is compared; it may
            be less than planned by a part of the dearest weight.
    """
    table = tables[0]
    scope = Scope.MODEL if redistributed else plan.scope or Scope.MODEL
    measured = measured_layers(plan, table, active)
    inside = {layer.name for layer in plan.rows_in(scope)}
    total = sum(m or 0 for m, layer in zip(measured, plan.layers, strict=True) if layer.name in inside)
    unplanned = _unplanned(plan, table)
    if scope is Scope.MODEL:
        total += sum(layer.measured_macs or 0 for layer in unplanned)
    thinned = (
        table.macs - sum(m or 0 for m in measured) - sum(layer.measured_macs or 0 for layer in unplanned)
    )
    report = AuditReport(
        subject=f"{plan.model or 'the model'} as {'planned' if active is None else 'applied'}",
        reference=f"plan: {plan.mixture or f'{plan.transform} at sparsity {decimal(plan.sparsity, 4)}'}"
        + (f", budget {plan.budget}" if plan.budget else "")
        + (f", attention {plan.attention} by pairs" if plan.attention else ""),
        budget_macs=plan.budget_macs(scope) if plan.budget else None,
        scope=scope,
        tolerance=tolerance,
        dense_macs=plan.dense_macs(scope),
        expected_macs=plan.macs(scope),
        measured_macs=total,
        counters={"closed_form": plan.macs(Scope.MODEL), **{t.engine: t.macs - thinned for t in tables}},
        attention=plan.attention,
        full_macs=total + _beside_pairs(plan, table, inside) if plan.attention else None,
        within=plan.within if scope is Scope.MODULE else "",
        layers=(
            *(
                AuditedLayer(layer.name, layer.macs, m)
                for layer, m in zip(plan.layers, measured, strict=True)
            ),
            *unplanned,
        ),
        elementwise=table.elementwise,
        assumptions=(
            *(
                ("weights under a mask count by the plan's nnz (planned, not measured)",)
                if active is None
                else ()
            ),
            *_attention_assumed(plan, table),
            *table.assumptions,
        ),
    )
    report = _with_unknowns(report, table, may_stay_uncalled)
    more = (_unplanned_problem(unplanned),) if unplanned else ()
    if redistributed:
        report = _of_total(report, plan)
        return _judged(replace(report, problems=(*report.problems, *more)), tables)
    wrong = [layer for layer in report.layers if not layer.agrees and layer not in unplanned]
    moved = active is not None and plan.macs(scope) - total in _spare(plan)
    problems = (_layer_problem(wrong, moved=moved),) if wrong else ()
    return _judged(replace(report, problems=(*problems, *more)), tables)


def _unplanned(plan: Plan, table: CountTable) -> tuple[AuditedLayer, ...]:
    """Contractions that no row of the plan stands for: the network computes what was not there when it was planned."""
    weights, activations = table.by_weight(), products(table)
    planned = {layer.name for layer in plan.layers if layer.role is Role.ACTIVATION}
    for layer in plan.layers:
        if layer.role is not Role.ACTIVATION:
            planned.update(_members(layer, weights))
    found = {name: macs for name, macs in (weights | activations).items() if macs and name not in planned}
    return tuple(AuditedLayer(name, 0, macs) for name, macs in found.items())


def _unplanned_problem(unplanned: Sequence[AuditedLayer]) -> str:
    first = unplanned[0]
    more = f" and {len(unplanned) - 1} more" if len(unplanned) > 1 else ""
    beside = any(".adapter." in layer.name for layer in unplanned)
    advice = (
        "merge adapters first, or count them by themselves"
        if beside
        else "the network is not the one that was planned, so plan it anew"
    )
    return f"{first.name} costs {count(first.measured_macs or 0)} MACs and has no row in the plan{more}; {advice}."


def _spare(plan: Plan) -> range:
    """MACs that may be missing after weights moved between layers: those that buy none of the dearest weights."""
    return range(max((layer.positions for layer in plan.layers if layer.maskable), default=1))


def _of_total(report: AuditReport, plan: Plan) -> AuditReport:
    """The report on a network whose weights moved between layers: only its total is judged."""
    expected = report.expected_macs or 0
    missing = expected - report.measured_macs
    spent = missing == 0 or missing not in _spare(plan)
    left = "" if spent else f"; {count(missing)} MACs are missing, fewer than the dearest weight costs"
    return replace(
        report,
        tolerance=report.tolerance if spent else max(report.tolerance, Fraction(missing, expected)),
        problems=tuple(_unused(report)),
        assumptions=(
            f"weights moved between layers, so only the total was compared{left}",
            *report.assumptions,
        ),
    )


def _unused(report: AuditReport) -> Iterator[str]:
    """Sentences on layers that no total can vouch for: those that were never used."""
    for layer in report.layers:
        if layer.measured_macs is None and layer.expected_macs:
            yield _layer_problem([layer])


def measured_layers(
    plan: Plan, table: CountTable, active: Mapping[str, Fraction] | None = None
) -> tuple[int | None, ...]:
    """Measured MACs of each planned row with the masks, or the plan's nnz, applied; None for an unused one.

    Args:
        plan: whose rows they are.
        table: MACs counted with every weight present.
        active: weight → the fraction of it that is kept; None for the plan's own nnz.
    """
    weights = table.by_weight()
    activations = products(table)
    return tuple(_measured(layer, weights, activations, active) for layer in plan.layers)


def _measured(
    layer: PlannedLayer,
    weights: Mapping[str, int],
    products: Mapping[str, int],
    active: Mapping[str, Fraction] | None,
) -> int | None:
    if layer.role is Role.ACTIVATION:
        return _by_pairs(layer, products.get(layer.name))
    if not layer.positions:
        return 0
    members = _members(layer, weights)
    if not members:
        return None
    if active is not None:
        return round(sum(weights[w] * active.get(w, Fraction(1)) for w in members))
    whole = sum(weights[w] for w in members)
    kept = Fraction(layer.nnz + layer.dense_weights, layer.capacity + layer.dense_weights)
    thinned = whole * kept
    return int(thinned) if thinned.denominator == 1 else round(thinned)


def _members(layer: PlannedLayer, weights: Collection[str]) -> list[str]:
    """Names of the weights that compute a planned row: its own, or the branches and factors in its place."""
    if layer.weight in weights:
        return [layer.weight]
    return [w for w in weights if w.startswith(f"{layer.name}.")]


def _by_pairs(layer: PlannedLayer, measured: int | None) -> int | None:
    """MACs of attention's planned pairs where engines counted every query with every key; what a block mask kept as it is."""
    return layer.macs if layer.attention and measured == layer.full_macs else measured


def _beside_pairs(plan: Plan, table: CountTable, inside: Collection[str]) -> int:
    """MACs that attention has in full beyond those of its pairs."""
    full = products(table)
    counted = (
        (layer, full.get(layer.name)) for layer in plan.layers if layer.name in inside and layer.attention
    )
    return sum(macs - (_by_pairs(layer, macs) or 0) for layer, macs in counted if macs is not None)


def _attention_assumed(plan: Plan, table: CountTable) -> Iterator[str]:
    """Sentence that the network is counted by a pattern which it does not have."""
    masks = {
        f"{c.module}:{c.operator}": c.attention.mask
        for c in table.contractions
        if c.weight is None and c.attention
    }
    full = products(table)
    planned = [
        (layer, layer.attention)
        for layer in plan.layers
        if layer.attention and full.get(layer.name) == layer.full_macs
    ]
    others = [(layer.name, pairs.after) for layer, pairs in planned if masks.get(layer.name) != pairs.after]
    if others:
        runs = sorted({masks.get(name) or "a mask that shapes do not tell" for name, _ in others})
        yield (
            f"attention counts by the pairs of {', '.join(dict.fromkeys(after for _, after in others))} in {len(others)} "
            f"module{'s' * (len(others) != 1)} (planned, not measured): the network computes {' and '.join(runs)}"
        )


def products(table: CountTable) -> dict[str, int]:
    """MACs of the contractions without a weight of the model, by `module:operator`."""
    totals: dict[str, int] = {}
    for c in table.contractions:
        if c.weight is None:
            name = f"{c.module}:{c.operator}"
            totals[name] = totals.get(name, 0) + c.macs
    return totals


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference that a model's MACs are compared with.

    Attributes:
        name: how the report names it.
        macs: MACs that it allows or predicts, scope *model*.
        layers: layer → MACs, where it knows them.
        dense_macs: MACs of the dense baseline, if there is one.
        at_most: whether only an excess fails (a budget).
    """

    name: str
    macs: int
    layers: Mapping[str, int] | None = None
    dense_macs: int | None = None
    at_most: bool = False

    @staticmethod
    def of_plan(plan: Plan, name: str) -> Reference:
        """A plan's totals, attention with every query and every key, as networks are counted."""
        return Reference(name, plan.full_macs(Scope.MODEL), dense_macs=plan.dense_full_macs(Scope.MODEL))

    @staticmethod
    def of_table(
        table: CountTable,
        name: str,
        nonzeros: Mapping[str, Fraction] | None = None,
        may_stay_uncalled: Collection[str] = (),
    ) -> Reference:
        """Another model, as it was counted.

        Args:
            table: of the other model.
            name: how the report names it.
            nonzeros: parameter → share of its weights that is not zero; None counts every weight.
            may_stay_uncalled: modules that the pass need not use.

        Raises:
            MeasureError: not all of it could be measured.
        """
        allowed = names_in("may_stay_uncalled", may_stay_uncalled)
        uncalled = [module for module in table.uncalled if module not in allowed]
        if table.unknown or uncalled:
            why = (
                *(unknown_sentence(*item) for item in table.unknown.items()),
                *map(uncalled_sentence, uncalled),
            )
            raise MeasureError(f"{name}, which is the reference, could not be measured: {' '.join(why)}")
        layers = layer_macs(table, nonzeros or {})
        return Reference(name, sum(layers.values()), layers, sum(layers.values()))

    @staticmethod
    def of_budget(text: str) -> Reference:
        """A budget such as "560M".

        Raises:
            InputError: it cannot be read.
        """
        return Reference(f"budget {text}", parse_count(text), at_most=True)


def audit_model(
    subject: str,
    tables: Sequence[CountTable],
    reference: Reference | None = None,
    *,
    tolerance: Fraction = Fraction(1, 1000),
    nonzeros: Mapping[str, Fraction] | None = None,
    may_stay_uncalled: Collection[str] = (),
    attention: str = "",
) -> AuditReport:
    """Report that compares a model's MACs with another model, a plan or a budget; without a reference, its measured MACs.

    Args:
        subject: what was measured.
        tables: counts of the model, one per engine.
        reference: what it is held against.
        tolerance: the largest relative difference that passes.
        nonzeros: parameter → share of its weights that is not zero.
        may_stay_uncalled: modules that the pass need not use.
        attention: pattern by whose pairs attention counts, within each call's own mask; "own" for that alone; empty
            for every query with every key.

    Raises:
        InputError: the pattern cannot be read or counted.
        MeasureError: nobody says what the mask of a call keeps.
    """
    table, kept = tables[0], nonzeros or {}
    hidden = hidden_macs(table, attention) if attention else {}
    measured = {name: macs - hidden.get(name, 0) for name, macs in layer_macs(table, kept).items()}
    saved = table.macs - sum(measured.values())
    expected = reference.layers if reference else None
    names = dict.fromkeys((*measured, *(expected or {})))
    report = AuditReport(
        subject=subject,
        reference=reference.name if reference else "",
        scope=Scope.MODEL,
        tolerance=tolerance,
        dense_macs=reference.dense_macs if reference else None,
        expected_macs=reference.macs if reference else None,
        measured_macs=table.macs - saved,
        counters={t.engine: t.macs - saved for t in tables},
        layers=tuple(
            AuditedLayer(name, None if expected is None else expected.get(name, 0), measured.get(name))
            for name in names
        ),
        elementwise=table.elementwise,
        assumptions=(*_within_masks(table, attention), *table.assumptions),
        attention=attention,
        full_macs=table.macs - saved + sum(hidden.values()) if attention else None,
        at_most=reference is not None and reference.at_most,
    )
    return _judged(_with_unknowns(report, table, may_stay_uncalled), tables)


def hidden_macs(table: CountTable, attention: str) -> dict[str, int]:
    """MACs of the pairs that attention's masks hide, by `module:operator`.

    Args:
        table: of the engine that reads sizes and masks.
        attention: a pattern that holds beside each call's own mask; "own" for that alone.

    Raises:
        InputError: the pattern cannot be read or counted.
        MeasureError: nobody says what the mask of a call keeps.
    """
    pattern = AttentionPattern() if attention == "own" else parse_attention(attention)
    found: dict[str, int] = {}
    for c in table.contractions:
        if c.attention is None:
            continue
        if c.attention.mask is None:
            raise MeasureError(
                f"{c.module}:{c.operator} is called with a mask whose values shapes do not tell, so its pairs are not known. "
                "Count it in full, without `attention`."
            )
        kept = c.attention.macs(c.macs, parse_attention(c.attention.mask) & pattern)
        found[f"{c.module}:{c.operator}"] = c.macs - kept
    return found


def _within_masks(table: CountTable, attention: str) -> Iterator[str]:
    """Sentence on a pattern that the network does not compute by itself, and on attention that nobody recognised."""
    if not attention:
        return
    own = sorted({c.attention.mask or "" for c in table.contractions if c.attention})
    if attention != "own":
        yield f"attention counts by the pairs of {attention} (asked for, not measured): the network computes {' and '.join(own) or 'none'}"
    others = [
        f"{c.module}:{c.operator}"
        for c in table.contractions
        if c.weight is None and c.macs and not c.attention
    ]
    if others:
        yield f"{len(others)} products of activations are counted without a pattern, because their pairs are not known: {others[0]}"


def layer_macs(table: CountTable, nonzeros: Mapping[str, Fraction]) -> dict[str, int]:
    """Module (weights) or `module:operator` (products of activations) → MACs, each weight by its nonzeros.

    Args:
        table: of the model.
        nonzeros: parameter → share of its weights that is not zero; others count whole.

    Raises:
        MeasureError: a weight with zeros computes in part only, so nobody knows how many of its zeros are left out.
    """
    for weight, whole in table.by_weight().items():
        if (whole * nonzeros.get(weight, Fraction(1))).denominator != 1:
            raise MeasureError(
                f"{weight} computes with a part of its weights only, so its cost depends on where its zeros are. Count all weights, without `nonzeros`."
            )
    totals: dict[str, Fraction] = {}
    for c in table.contractions:
        name = f"{c.module}:{c.operator}" if c.weight is None else c.module or c.weight
        macs = c.macs * nonzeros.get(c.weight or "", Fraction(1))
        totals[name] = totals.get(name, Fraction(0)) + macs
    return {name: int(macs) for name, macs in totals.items()}


def _with_unknowns(report: AuditReport, table: CountTable, may_stay_uncalled: Collection[str]) -> AuditReport:
    """What nobody vouches for is a problem; what somebody does becomes an assumption."""
    allowed = names_in("may_stay_uncalled", may_stay_uncalled)
    silent = tuple(f"{m} was not called, as allowed" for m in table.uncalled if m in allowed)
    return replace(
        report,
        unknown_ops=table.unknown,
        uncalled_modules=tuple(m for m in table.uncalled if m not in allowed),
        assumptions=(*report.assumptions, *silent),
    )


def _judged(report: AuditReport, tables: Sequence[CountTable]) -> AuditReport:
    disagreements = cross_check(tables)
    problems = [*report.problems, *disagreements]
    deviation = report.deviation
    if deviation is not None and (deviation if report.at_most else abs(deviation)) > report.tolerance:
        problems.append(deviation_sentence(report, deviation))
    if report.expected_macs == 0 and report.measured_macs:
        problems.append(
            f"{count(report.measured_macs)} MACs were measured, and {report.reference} costs none; a cost of 0 is no reference."
        )
    return replace(report, problems=tuple(problems), disagreements=disagreements)


def _layer_problem(wrong: Sequence[AuditedLayer], *, moved: bool = False) -> str:
    first = wrong[0]
    more = f" and {len(wrong) - 1} more layers" if len(wrong) > 1 else ""
    seen = "was never used" if first.measured_macs is None else f"costs {count(first.measured_macs)} MACs"
    told = f"{first.name} {seen} where {count(first.expected_macs or 0)} were planned{more}."
    if not moved:
        return told
    return f"{told} The total is as planned: if training moved weights between layers, as SNFS does, compare only the total with `redistributed=True`."


def deviation_sentence(report: AuditReport, deviation: Fraction) -> str:
    """Sentence about a total that is off: both counts, the tolerance and the layer that is off most."""
    assert report.expected_macs is not None
    way = "more" if deviation > 0 else "fewer"
    off = count(abs(report.measured_macs - report.expected_macs))
    worst = sorted(
        (layer for layer in report.layers if not layer.agrees),
        key=lambda layer: -abs((layer.measured_macs or 0) - (layer.expected_macs or 0)),
    )
    by = f"; the most in {worst[0].name}" if worst else ""
    return (
        f"{count(report.measured_macs)} MACs were measured and {count(report.expected_macs)} expected ({report.reference}): {off} {way}, "
        f"{percent(deviation)}, and the tolerance is {float(report.tolerance):.3g}{by}."
    )


def unmeasured_sentences(report: AuditReport) -> tuple[str, ...]:
    """Sentences about operators and modules that could not be measured, each with the argument that allows them."""
    return (
        *(unknown_sentence(name, calls) for name, calls in report.unknown_ops.items()),
        *(uncalled_sentence(name) for name in report.uncalled_modules),
    )
