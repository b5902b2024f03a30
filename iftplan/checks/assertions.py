"""Assertions about what a model costs, whose message is the layer table.

The fixtures of the pytest plugin; any other test runner can call them as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from iftplan.base.errors import MeasureError
from iftplan.base.units import Convention, parse_tolerance
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec
from iftplan.plans.audit.audit import AuditReport, Reference
from iftplan.plans.plan import Plan

if TYPE_CHECKING:
    from torch import nn


_MOST_LAYERS = 40

Number = str | int | float | Fraction


class IsoFlop(Protocol):
    """Type of `iso_flop`."""

    def __call__(
        self,
        model: nn.Module | str,
        reference: Plan | nn.Module | str,
        /,
        *inputs: str,
        tolerance: Number = ...,
    ) -> AuditReport:
        """See `iso_flop`."""


class FlopBudget(Protocol):
    """Type of `flop_budget`."""

    def __call__(
        self, model: nn.Module | str, budget: str | int, /, *inputs: str, tolerance: Number = ...
    ) -> AuditReport:
        """See `flop_budget`."""


def iso_flop(
    model: nn.Module | str, reference: Plan | nn.Module | str, /, *inputs: str, tolerance: Number = 0
) -> AuditReport:
    """Assert that a model costs what a plan, or another model, says.

    Args:
        model: a network, or a source such as "zoo:resnet18".
        reference: a plan or its file, another network, or a source.
        *inputs: such as "1x3x32x32"; a plan and most sources know theirs.
        tolerance: the largest relative difference that passes, such as "0.1%".

    Raises:
        AssertionError: it does not; the text is the layer table, the largest difference first.
        MeasureError: it could not be measured.
    """
    __tracebackhide__ = True
    from iftplan.nn.application.audit import audit_network
    from iftplan.nn.counting.measure import measure

    allowed = _fraction(tolerance)
    plan = _plan(reference)
    if plan is not None:
        return _held(_against_plan(model, plan, inputs, allowed))
    assert not isinstance(reference, Plan)
    network, specs = _network(model, inputs)
    base, base_specs = _network(reference, inputs)
    expected = Reference.of_table(measure(base, base_specs), _called(reference))
    return _held(audit_network(_called(model), network, specs, expected, tolerance=allowed))


def flop_budget(
    model: nn.Module | str, budget: str | int, /, *inputs: str, tolerance: Number = 0
) -> AuditReport:
    """Assert that a model costs no more than a budget.

    Args:
        model: a network, or a source such as "zoo:resnet18".
        budget: MACs: 560_000_000, "560M", or "1.2 GFLOPs", two of which make one MAC.
        *inputs: such as "1x3x32x32"; most sources know theirs.
        tolerance: the largest relative excess that passes.

    Raises:
        AssertionError: it costs more; the text is the layer table, the most expensive first.
        MeasureError: it could not be measured.
    """
    __tracebackhide__ = True
    from iftplan.nn.application.audit import audit_network

    network, specs = _network(model, inputs)
    reference = Reference.of_budget(str(budget))
    return _held(audit_network(_called(model), network, specs, reference, tolerance=_fraction(tolerance)))


def _held(report: AuditReport) -> AuditReport:
    """The report, if it passed."""
    __tracebackhide__ = True
    if report.passed:
        return report
    from iftplan.plans.audit.audit import Verdict, unmeasured_sentences

    if report.verdict is Verdict.UNMEASURED:
        raise MeasureError(
            " ".join((f"{report.subject} could not be measured:", *unmeasured_sentences(report)))
        )
    raise AssertionError(_message(report))


def _message(report: AuditReport) -> str:
    from iftplan.plans.audit.tables import audit_headline, layers_by_cost
    from iftplan.report.table import Table
    from iftplan.report.terminal import to_text

    layers = layers_by_cost(report, Convention.MAC)
    shown, left = layers.rows[:_MOST_LAYERS], len(layers.rows) - _MOST_LAYERS
    notes = (f"… and {left} more layers",) if left > 0 else ()
    headline = f"{report.subject}: {audit_headline(report)} against {report.reference}"
    table = to_text(Table(layers.columns, shown, notes=notes)).rstrip()
    return "\n".join((headline, *report.problems, "", table))


def _against_plan(
    model: nn.Module | str, plan: Plan, inputs: Sequence[str], tolerance: Fraction
) -> AuditReport:
    """Layer by layer where the network has masks of its own, as a whole where it has none."""
    from iftplan.nn.application.audit import applied_here, audit_network, measure_applied

    network, specs = _network(model, inputs, plan.inputs)
    if applied_here(plan, network, specs):
        return measure_applied(plan, network, tolerance=tolerance)
    reference = Reference.of_plan(plan, f"plan for {plan.model or 'the model'}")
    has_values = not any(parameter.is_meta for parameter in network.parameters())
    return audit_network(_called(model), network, specs, reference, nonzeros=has_values, tolerance=tolerance)


def _plan(reference: object) -> Plan | None:
    """The plan that a reference is, or is the file of."""
    if isinstance(reference, Plan):
        return reference
    if not isinstance(reference, str) or not reference.endswith(".json") or reference.startswith("hf:"):
        return None
    from iftplan.base.documents import loads, read_text
    from iftplan.plans.document.plan import parse_plan

    return parse_plan(loads(read_text(reference), reference), reference)


def _network(
    model: nn.Module | str, inputs: Sequence[str], known: tuple[InputSpec, ...] = ()
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    """A network and the inputs that it is counted with.

    Raises:
        InputError: nobody says what the inputs are.
    """
    specs = tuple(map(parse_input, inputs)) or known
    from iftplan.nn.sources import construct_with_inputs
    from iftplan.nn.sources.default_inputs import known_inputs

    if isinstance(model, str):
        return construct_with_inputs(model, specs)
    return model, known_inputs(_called(model), specs)


def _called(model: nn.Module | str) -> str:
    return model if isinstance(model, str) else type(model).__name__


def _fraction(tolerance: Number) -> Fraction:
    """The tolerance, exactly.

    Raises:
        InputError: not a number, or negative.
    """
    return parse_tolerance(str(tolerance))
