"""Assertions about what a model costs, whose message is the layer table.

The fixtures of the pytest plugin; any other test runner can call them as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypedDict

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import IftplanError, InputError, MeasureError
from iftplan.base.units import Convention, parse_tolerance
from iftplan.models.sources import parse_source
from iftplan.models.spec import InputSpec
from iftplan.plans.audit.audit import AuditReport, Reference
from iftplan.plans.plan import Plan

if TYPE_CHECKING:
    from torch import nn

    from iftplan.nn.counting.operators.registry import Operator


P = ParamSpec("P")

Number = str | int | float | Fraction


class IsoFlop(Protocol):
    """Type of `iso_flop`."""

    def __call__(
        self,
        model: nn.Module | str,
        reference: Plan | nn.Module | str,
        /,
        *given: object,
        inputs: object = ...,
        tolerance: Number = ...,
        redistributed: bool = ...,
        allow: Sequence[str] = ...,
        may_stay_uncalled: Sequence[str] = ...,
        layers: int | None = ...,
    ) -> AuditReport:
        """See `iso_flop`."""


class FlopBudget(Protocol):
    """Type of `flop_budget`."""

    def __call__(
        self,
        model: nn.Module | str,
        budget: str | int,
        /,
        *given: object,
        inputs: object = ...,
        tolerance: Number = ...,
        nonzeros: bool = ...,
        allow: Sequence[str] = ...,
        may_stay_uncalled: Sequence[str] = ...,
        layers: int | None = ...,
    ) -> AuditReport:
        """See `flop_budget`."""


def _without_internals(function: Callable[P, AuditReport]) -> Callable[P, AuditReport]:
    """The function with errors whose traceback ends in the test: what failed inside a model is in the message."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> AuditReport:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except IftplanError as error:
            told = error.with_traceback(None)
        raise told from None

    return called


@_without_internals
@check_arguments
def iso_flop(
    model: nn.Module | str,
    reference: Plan | nn.Module | str,
    /,
    *given: object,
    inputs: object = None,
    tolerance: Number = 0,
    redistributed: bool = False,
    allow: Sequence[str] = (),
    may_stay_uncalled: Sequence[str] = (),
    layers: int | None = 10,
) -> AuditReport:
    """Assert that a model costs as many MACs as a plan or another model; returns the report of the audit.

    Weights under masks count by what the masks keep, in the model and in another that it is compared with.

    Args:
        model: a network, or a source such as "zoo:resnet18".
        reference: a plan or its file, another network, or a source.
        *given: the inputs of both, such as "1x3x32x32", a tensor or a batch, as `iftplan.read_model` takes them; a plan
            and most sources know theirs.
        inputs: the same by name, as one value.
        tolerance: the largest relative difference that passes, such as "0.1%".
        redistributed: whether training moved weights between layers, as SNFS does, so that only the total of a network
            with a plan's masks is compared.
        allow: costs that you vouch for, of operators without a formula, such as "mylib::scan=0".
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        layers: number of layers that the message lists, those with the largest differences; None for all.

    Raises:
        AssertionError: it costs more or less, and the message lists the layers that differ; or it is the plan's own dense
            network, which the plan was not applied to.
        MeasureError: it could not be measured.
    """
    __tracebackhide__ = True
    from iftplan.nn.application.audit import audit_network, network_reference

    allowed, inputs = _fraction(tolerance), _once("iso_flop", given, inputs)
    vouched = _vouched(allow, may_stay_uncalled)
    plan = _plan(reference)
    if plan is not None:
        return _held(_against_plan(model, plan, inputs, allowed, redistributed, vouched), layers)
    assert not isinstance(reference, Plan)
    network, specs = _network_with_masks(model, inputs)
    base, base_specs = _network_with_masks(reference, inputs)
    expected = network_reference(_called(reference), base, base_specs, masks=True, **vouched)
    report = audit_network(_called(model), network, specs, expected, masks=True, tolerance=allowed, **vouched)
    return _held(report, layers)


@_without_internals
@check_arguments
def flop_budget(
    model: nn.Module | str,
    budget: str | int,
    /,
    *given: object,
    inputs: object = None,
    tolerance: Number = 0,
    nonzeros: bool = False,
    allow: Sequence[str] = (),
    may_stay_uncalled: Sequence[str] = (),
    layers: int | None = 10,
) -> AuditReport:
    """Assert that a model costs no more MACs than a budget; returns the report of the audit.

    Args:
        model: a network, or a source such as "zoo:resnet18".
        budget: MACs: 560_000_000, "560M", or "1.2 GFLOPs", two of which make one MAC.
        *given: the inputs, such as "1x3x32x32", a tensor or a batch, as `iftplan.read_model` takes them; most sources
            know theirs.
        inputs: the same by name, as one value.
        tolerance: the largest relative excess that passes.
        nonzeros: whether the weights of a network count by its masks and zeros; all of them do otherwise.
        allow: costs that you vouch for, of operators without a formula, such as "mylib::scan=0".
        may_stay_uncalled: modules with weights that the forward pass may leave unused.
        layers: number of layers that the message lists, the most expensive ones; None for all.

    Raises:
        AssertionError: it costs more; the message lists the most expensive layers, and says where masks were not counted.
        MeasureError: it could not be measured.
    """
    __tracebackhide__ = True
    from iftplan.nn.application.audit import audit_network

    inputs = _once("flop_budget", given, inputs)
    network, specs = _network(model, inputs, device="cpu" if nonzeros else "meta")
    report = audit_network(
        _called(model),
        network,
        specs,
        Reference.of_budget(str(budget)),
        nonzeros=nonzeros,
        tolerance=_fraction(tolerance),
        **_vouched(allow, may_stay_uncalled),
    )
    return _held(report, layers, "" if nonzeros else _uncounted_masks(network))


def _uncounted_masks(network: nn.Module) -> str:
    """A sentence on masks that a count of all weights takes no notice of; empty where there are none."""
    from iftplan.nn.masks.masked_weights import masked_weights

    masked = next(iter(masked_weights(network)), None)
    return (
        ""
        if masked is None
        else "the network has masks, and weights off them are counted too; `nonzeros=True` counts those that they keep"
    )


def _held(report: AuditReport, most: int | None, note: str = "") -> AuditReport:
    """The report, if it passed."""
    __tracebackhide__ = True
    if report.passed:
        return report
    from iftplan.plans.audit.audit import Verdict, unmeasured_sentences

    if report.verdict is Verdict.UNMEASURED:
        raise MeasureError(
            " ".join((f"{report.subject} could not be measured:", *unmeasured_sentences(report)))
        )
    raise AssertionError("\n".join(filter(None, (_message(report, most), note))))


def _message(report: AuditReport, most: int | None) -> str:
    from iftplan.plans.audit.audit import deviation_sentence
    from iftplan.plans.audit.tables import audit_headline, layers_by_cost
    from iftplan.report.table import Table
    from iftplan.report.terminal import to_text

    differ = tuple(layer for layer in report.layers if not layer.agrees)
    layers = layers_by_cost(report, Convention.MAC)
    shown = layers.rows if most is None else layers.rows[: min(most, len(differ) or most)]
    left = len(layers.rows) - len(shown)
    notes = (
        (f"… and {left} more layer{'s' * (left != 1)} (pytest -vv or layers=None lists all)",) if left else ()
    )
    headline = f"{report.subject}: {audit_headline(report)} against {report.reference}"
    told = "" if report.deviation is None else deviation_sentence(report, report.deviation)
    table = to_text(Table(layers.columns, shown, notes=notes)).rstrip()
    return "\n".join((headline, *(p for p in report.problems if p != told), "", table))


class _Vouched(TypedDict):
    operators: Mapping[str, Operator]
    may_stay_uncalled: Sequence[str]


def _vouched(allow: Sequence[str], may_stay_uncalled: Sequence[str]) -> _Vouched:
    """What the user vouches for, as audits take it.

    Raises:
        InputError: a cost that cannot be read.
    """
    from iftplan.models.allowances import parse_vouched
    from iftplan.nn.counting.operators.allowed import vouched_operators

    return {
        "operators": vouched_operators(parse_vouched(allow)),
        "may_stay_uncalled": may_stay_uncalled,
    }


def _against_plan(
    model: nn.Module | str,
    plan: Plan,
    inputs: object,
    tolerance: Fraction,
    redistributed: bool,
    vouched: _Vouched,
) -> AuditReport:
    """Layer by layer where the network has masks of its own, as a whole where it has none."""
    from iftplan.nn.application.against_plan import audit_by_plan

    network, specs = _network_with_masks(model, inputs, plan.inputs)
    without_values = any(parameter.is_meta for parameter in network.parameters())
    masks_some = bool(plan.cardinality.maskable_weights)
    if isinstance(model, str) and without_values and masks_some and parse_source(model).runs_user_code:
        network, specs = _network(model, inputs, plan.inputs, "cpu")  # its zeros are in its values
    return audit_by_plan(
        _called(model),
        network,
        specs,
        plan,
        reference=f"plan for {plan.model or 'the model'}",
        nonzeros=not any(parameter.is_meta for parameter in network.parameters()),
        tolerance=tolerance,
        redistributed=redistributed,
        **vouched,
    )


def _plan(reference: object) -> Plan | None:
    """The plan that a reference is, or is the file of."""
    if isinstance(reference, Plan):
        return reference
    if not isinstance(reference, str) or not reference.endswith(".json") or reference.startswith("hf:"):
        return None
    from iftplan.base.documents import loads, read_text
    from iftplan.plans.document.plan import parse_plan

    return parse_plan(loads(read_text(reference), reference), reference)


def _once(function: str, given: Sequence[object], inputs: object) -> object:
    """The inputs as one value, whichever way they were given; None for none.

    Raises:
        InputError: both ways.
    """
    if given and inputs is not None:
        raise InputError(
            f"{function}: the inputs are given twice, by position and as inputs; give them once."
        )
    return inputs if not given else given[0] if len(given) == 1 else given


def _network(
    model: nn.Module | str, inputs: object, known: tuple[InputSpec, ...] = (), device: str = "meta"
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    """A network and the inputs that it is counted with.

    Raises:
        InputError: it is no network, or nobody says what the inputs are.
    """
    from iftplan.nn.meta.inputs import given_inputs
    from iftplan.nn.sources import construct
    from iftplan.nn.sources.default_inputs import known_inputs

    if isinstance(model, str):
        built = construct(model, device=device)
        network, known = built.model, known or built.inputs
    elif hasattr(model, "named_parameters"):
        network = model
    else:
        instead = (
            " A plan is held to its own budget by iftplan.audit(plan)." if isinstance(model, Plan) else ""
        )
        raise InputError(
            f"a {type(model).__name__} is no network, and no source such as 'zoo:resnet18'.{instead}"
        )
    return network, known_inputs(_called(model), known if inputs is None else given_inputs(inputs, network))


def _network_with_masks(
    model: nn.Module | str, inputs: object, known: tuple[InputSpec, ...] = ()
) -> tuple[nn.Module, tuple[InputSpec, ...]]:
    """The same, with values where a source has masks: without, nobody knows what they keep."""
    from iftplan.nn.masks.masked_weights import SUFFIX

    network, specs = _network(model, inputs, known)
    if not isinstance(model, str) or not any(name.endswith(SUFFIX) for name, _ in network.named_buffers()):
        return network, specs
    return _network(model, inputs, known, "cpu")


def _called(model: nn.Module | str) -> str:
    return model if isinstance(model, str) else type(model).__name__


def _fraction(tolerance: Number) -> Fraction:
    """The tolerance, exactly.

    Raises:
        InputError: not a number, or negative.
    """
    return parse_tolerance(str(tolerance))
