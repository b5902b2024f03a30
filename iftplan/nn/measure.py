"""Measure a model: one forward pass, counted by one engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import nn

from iftplan.counting import CountTable
from iftplan.errors import IftplanError, InputError, MeasureError
from iftplan.nn.exits import no_exit
from iftplan.nn.inputs import make_inputs
from iftplan.nn.operators import OPERATORS, Operator, Operators
from iftplan.nn.threads import one_thread
from iftplan.nn.twin import check_ties
from iftplan.spec import InputSpec

ENGINES = ("meta", "fvcore", "flop_counter")


def measure(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    *,
    engine: str = "meta",
    operators: Mapping[str, Operator] = MappingProxyType({}),
) -> CountTable:
    """Count the contraction MACs of one forward pass in eval mode, without gradients.

    The model is left as it was: its training flags are restored and nothing stays registered on it.

    Args:
        model: on the meta device or on the CPU.
        inputs: the inputs' shapes and dtypes, see `make_inputs`.
        engine: "meta" (exact, no memory, the default), "fvcore" or "flop_counter".
        operators: qualified name ("mylib::scan") → formula, for operators that would be unknown.

    Raises:
        InputError: an unknown engine or dtype, or a model that lost its ties on the way to the meta device.
        MeasureError: the model's forward pass raised; its own message is in the text.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps is counted as it was written
    check_ties(model)
    counter = _engine(engine, {**OPERATORS, **operators})
    args, kwargs = make_inputs(inputs, counter.device(model))
    with counting_conditions(model):
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
    return replace(table, assumptions=table.assumptions + supplied)


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


@contextmanager
def counting_conditions(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, no fused fast path that would hide a layer's products, and one thread that returns.

    Raises:
        MeasureError: the pass ended the process, or computed in threads or processes of its own.
    """
    training = [module for module in model.modules() if module.training]
    fastpath = torch.backends.mha.get_fastpath_enabled()
    for module in training:
        module.training = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), no_exit(partial(_ended, type(model).__name__)), one_thread(model):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for module in training:
            module.training = True


def _ended(model: str, call: str) -> MeasureError:
    return MeasureError(
        f"{model} calls {call} in its forward pass, and only a pass that returns can be measured; take the call out, or raise an "
        "error in its place."
    )
