"""From a network to its spec: weight layers, products of activations, roles, and coupled widths if asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import EndedError, IftplanError, MeasureError
from iftplan.models.counting import CountTable
from iftplan.models.spec import Couplings, Heads, InputSpec, ModelSpec, Product
from iftplan.nn.counting.measure import data_of, measure
from iftplan.nn.counting.operators.registry import Operator
from iftplan.nn.counting.passes.data import Data
from iftplan.nn.counting.passes.lazy_modules import materialise
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.meta.copies import check_ties
from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.meta.inputs import Inputs, given_inputs
from iftplan.nn.meta.wrappers import unwrapped
from iftplan.nn.reading.dataflow import weight_uses
from iftplan.nn.reading.weight_layers import weight_layers
from iftplan.nn.sources import BuiltModel, construct
from iftplan.nn.sources.default_inputs import HOW_TO_GIVE_INPUTS, default_inputs, known_inputs
from iftplan.nn.torch_internals import failure


@check_arguments
def read_model(
    source: str | nn.Module,
    inputs: Inputs | None = None,
    *,
    widths: bool = False,
    heads: Heads = "number",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> ModelSpec:
    """Spec of a model: its layers, their exact MACs and roles, from one forward pass, without data if shapes suffice.

    Args:
        source: a MODEL argument (`zoo:resnet18`, `path/file.py:factory` …) or a network, which is left as it is.
        inputs: shapes and dtypes, or example inputs (see `given_inputs`); by default those of the zoo or of the model's own configuration.
        widths: whether to find which channels widen together; if that is impossible, the spec says why.
        heads: what attention keeps when it widens: the "number" of heads or the "size" of a head.
        operators: formulas for operators that have none, by qualified name.

    Raises:
        InputError: the source cannot be built, needs inputs that were not given, or has tied weights that are separate on
            the meta device.
        MeasureError: the model does not run, or has an operator of unknown cost.
    """
    source = source if isinstance(source, str) else unwrapped(source)
    built = construct(source) if isinstance(source, str) else BuiltModel(source, default_inputs(source))
    check_ties(built.model)
    guessed = inputs is None or (not isinstance(inputs, Tensor) and not inputs)
    inputs = built.inputs if guessed else given_inputs(inputs, built.model)
    known_inputs(_called(source), inputs)
    built = replace(built, model=materialise(built.model, inputs))
    table = _measured(built.model, inputs, guessed, operators)
    _refuse_unknown(table, _called(source))
    uses = weight_uses(built.model, inputs, data_of(table))
    couplings, refusal = _couplings(built.model, inputs, heads, operators) if widths else (None, "")
    if refusal and data_of(table) is Data.GIVEN:
        refusal = (
            f"data decide how much it computes, and that could not be followed to other widths: {refusal}"
        )
    return ModelSpec(
        source=source if isinstance(source, str) else "",
        inputs=inputs,
        layers=weight_layers(built.model, table, uses),
        products=_products(table),
        fingerprint=fingerprint(built.model),
        couplings=couplings,
        refusal=refusal,
        assumptions=(*built.assumptions, *table.assumptions, *_uncalled(table), *_masks(built.model)),
    )


def _masks(model: nn.Module) -> tuple[str, ...]:
    """That zeros were not looked at, where a network has masks of ours."""
    masked = sum(1 for _ in masked_weights(model))
    if not masked:
        return ()
    return (
        f"{masked} weight{'s are' if masked > 1 else ' is'} under masks and counted as dense; nn.measure_applied counts what the masks of a plan keep, and `iftplan audit MODEL --nonzeros` what any masks keep.",
    )


def load(*, widths: bool) -> None:
    """Import what reading every model needs, and what tracing its widths needs if they are asked for."""
    failure("counting")  # which is tried once
    if widths:
        import_module("iftplan.nn.reading.widths.trace")
        failure("widths")


def _called(source: str | nn.Module) -> str:
    return source if isinstance(source, str) else f"the {type(source).__name__}"


def _measured(
    model: nn.Module, inputs: tuple[InputSpec, ...], guessed: bool, operators: Mapping[str, Operator]
) -> CountTable:
    try:
        return measure(model, inputs, operators=operators)
    except MeasureError as error:
        if not guessed:
            raise
        given = ", ".join(map(str, inputs))
        raise MeasureError(f"{error}; the input {given} was guessed: {HOW_TO_GIVE_INPUTS}") from error


def _refuse_unknown(table: CountTable, model: str) -> None:
    if table.unknown:
        calls = ", ".join(
            f"{operator} ({count} call{'s' * (count != 1)})"
            for operator, count in sorted(table.unknown.items())
        )
        them = "it performs" if len(table.unknown) == 1 else "they perform"
        zeros = [f"{operator}=0" for operator in sorted(table.unknown)]
        raise MeasureError(
            f"iftplan has no cost formula for operators of {model}: {calls}. If {them} no multiply-accumulates, pass "
            f"`allow={zeros}`; else give their MACs per call."
        )


def _uncalled(table: CountTable) -> tuple[str, ...]:
    return tuple(f"{name} was not called, so it costs nothing." for name in table.uncalled)


def _couplings(
    model: nn.Module,
    inputs: tuple[InputSpec, ...],
    heads: Heads,
    operators: Mapping[str, Operator],
) -> tuple[Couplings | None, str]:
    from iftplan.nn.reading.widths.trace import trace_widths

    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return None, "it is or contains a scripted module, whose shapes are compiled in"
    try:
        return trace_widths(model, inputs, heads=heads, operators=operators), ""
    except EndedError:
        raise  # it says nothing of widths
    except IftplanError as error:
        return None, str(error)


def _products(table: CountTable) -> tuple[Product, ...]:
    """Contractions of activations, added up per module and operator, in the order of first use."""
    macs: dict[tuple[str, str], int] = {}
    attention = {(c.module, c.operator): c.attention for c in table.contractions if c.weight is None}
    for c in table.contractions:
        if c.weight is None and c.macs:
            macs[c.module, c.operator] = macs.get((c.module, c.operator), 0) + c.macs
    return tuple(
        Product(f"{module}:{operator}", operator, count, attention[module, operator])
        for (module, operator), count in macs.items()
    )
