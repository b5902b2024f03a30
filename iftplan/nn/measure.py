"""Measure a model: one forward pass, counted by one engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Protocol

from torch import nn

from iftplan.counting import CountTable
from iftplan.errors import IftplanError, InputError, MeasureError
from iftplan.nn.conditions import counting_conditions
from iftplan.nn.inputs import Inputs, given_inputs, make_inputs
from iftplan.nn.lazy import materialised
from iftplan.nn.operators import OPERATORS, Operator, Operators
from iftplan.nn.twin import check_ties

ENGINES = ("meta", "fvcore", "flop_counter")


def measure(
    model: nn.Module,
    inputs: Inputs,
    *,
    engine: str = "meta",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> CountTable:
    """Count the contraction MACs of one forward pass in eval mode, without gradients.

    The model is left as it was: its training flags are restored and nothing stays registered on it.

    Args:
        model: on the meta device or on the CPU.
        inputs: the inputs' shapes and dtypes, or example inputs, see `given_inputs`.
        engine: "meta" (exact, no memory, the default), "fvcore" or "flop_counter".
        operators: qualified name ("mylib::scan") → formula, for operators that would be unknown.

    Raises:
        InputError: an unknown engine or dtype, or a model that lost its ties on the way to the meta device.
        MeasureError: the model's forward pass raised; its own message is in the text.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps is counted as it was written
    check_ties(model)
    inputs = given_inputs(inputs, model)
    model = materialised(model, inputs)
    counter = _engine(engine, {**OPERATORS, **operators})
    args, kwargs = make_inputs(inputs, counter.device(model))
    with counting_conditions(model) as assumed:
        try:
            table = counter.count(model, args, kwargs)
        except IftplanError:
            raise
        except Exception as error:
            given = ", ".join(map(str, inputs)) or "no inputs"
            raise MeasureError(
                f"{type(model).__name__} could not be run on {given} by the {engine} engine: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
    supplied = tuple(f"the formula given for {name} was used where it ran" for name in operators)
    return replace(table, assumptions=(*table.assumptions, *dict.fromkeys(assumed), *supplied))


class _Counter(Protocol):
    """An engine that says where its inputs have to be."""

    def device(self, model: nn.Module) -> str: ...

    def count(
        self, model: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> CountTable: ...


def _engine(name: str, operators: Operators) -> _Counter:
    match name:  # imported when asked for: the other opinions are rarely needed and slow to import
        case "meta":
            from iftplan.nn.meta_engine import MetaEngine

            return MetaEngine(operators)
        case "fvcore":
            from iftplan.nn.fvcore_engine import FvcoreEngine

            return FvcoreEngine(operators)
        case "flop_counter":
            from iftplan.nn.flop_counter_engine import FlopCounterEngine

            return FlopCounterEngine(operators)
    nearest = get_close_matches(name, ENGINES, n=1, cutoff=0.3) or ["meta"]
    raise InputError(f"unknown engine {name!r}; there are {', '.join(ENGINES)} (nearest: {nearest[0]}).")
