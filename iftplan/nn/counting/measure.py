"""Measure a model: one forward pass, counted by one engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, MeasureError
from iftplan.base.suggestions import did_you_mean
from iftplan.models.counting import ENGINES, CountTable, Values
from iftplan.nn.counting.operators.registry import OPERATORS, Operator, Operators
from iftplan.nn.counting.passes.data import Data, look_as_needed
from iftplan.nn.counting.passes.lazy_modules import materialise
from iftplan.nn.meta.copies import check_ties
from iftplan.nn.meta.inputs import Inputs, given_inputs
from iftplan.nn.meta.wrappers import unwrapped


@check_arguments
def measure(
    model: nn.Module,
    inputs: Inputs,
    *,
    engine: str = "meta",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> CountTable:
    """Table of the multiply-accumulates (MACs) of one forward pass in eval mode, operator by operator.

    The pass runs on a copy without data, and the model is left as it was. If the model's work depends on values, the
    copy runs on the CPU with random values of a fixed seed, and the table's assumptions say so.

    Args:
        model: on any device.
        inputs: the inputs' shapes and dtypes, or example inputs, see `given_inputs`.
        engine: "meta" (exact, no memory, the default), "fvcore" or "flop_counter".
        operators: qualified name ("mylib::scan") → formula, for operators that would be unknown.

    Raises:
        InputError: an unknown engine or dtype, or tied weights that are separate on the meta device.
        MeasureError: the model's forward pass raised (the message is in the text), or it has to run with data and is
            too large for that.
    """
    model = unwrapped(model)  # what torch.compile wraps is counted as it was written
    check_ties(model)
    inputs = given_inputs(inputs, model)
    model = materialise(model, inputs)
    met: set[str] = set()
    vouched = {
        name: replace(one, macs=partial(_noted, met, name, one.macs)) for name, one in operators.items()
    }
    known = {**OPERATORS, **vouched}
    counter = _engine(engine, known)
    given = ", ".join(map(str, inputs)) or "no inputs"
    counting = "" if engine == "meta" else f" and counted by {engine}"
    called = f"{type(model).__name__} could not be run on {given}{counting}"
    seen = look_as_needed(model, inputs, counter.count, _assumed, called)
    supplied = tuple(
        f"{name} was counted with the cost that you gave."
        if name in met
        else f"{name}, whose cost you gave, was not called."
        for name in operators
    )
    table, uncalled = seen.result, seen.result.uncalled
    unseen: tuple[str, ...] = ()
    if engine != "meta":  # others do not notice what runs without a product
        try:
            everything = look_as_needed(model, inputs, _engine("meta", known).count, _assumed, called)
            uncalled = everything.result.uncalled
        except MeasureError:  # what the other engine can count nevertheless
            unseen = _UNSEEN
    notes = (*table.assumptions, *seen.assumed, *supplied, *unseen)
    return replace(table, uncalled=uncalled, assumptions=notes)


_UNSEEN = (
    "which modules the forward pass did not use is not known, because the engine meta cannot count it here",
)


def _noted(met: set[str], name: str, macs: Callable[[Any, Any], int], arguments: Any, output: Any) -> int:
    """MACs of a call of an operator that the user vouches for, which is noted."""
    met.add(name)
    return macs(arguments, output)


def data_of(table: CountTable) -> Data:
    """The data that a count's forward pass ran on: the given input, or assumptions in the place of values."""
    return Data.GIVEN if table.values is Values.GIVEN else Data.ASSUMED


def _assumed(table: CountTable) -> object:
    """What was counted, if the model asked for values on the way."""
    if table.values is not Values.ASSUMED:
        return None
    return {(c.module, c.weight): c.macs for c in table.contractions}, table.unknown


class _Counter(Protocol):
    """An engine: it counts one pass of a model that it may change."""

    def count(
        self, model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object], data: Data
    ) -> CountTable: ...


def _engine(name: str, operators: Operators) -> _Counter:
    match name:  # imported when asked for: the other opinions are rarely needed and slow to import
        case "meta":
            from iftplan.nn.counting.engines.meta import MetaEngine

            return MetaEngine(operators)
        case "fvcore":
            from iftplan.nn.counting.engines.fvcore import FvcoreEngine

            return FvcoreEngine(operators)
        case "flop_counter":
            from iftplan.nn.counting.engines.flop_counter import FlopCounterEngine

            return FlopCounterEngine(operators)
    raise InputError(
        f"unknown engine {name!r}.{did_you_mean(name, ENGINES, cutoff=0.3)} Engines are {', '.join(ENGINES)}."
    )
