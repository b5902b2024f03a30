"""Where the values come from that a model asks its tensors for, and a pass that finds out which it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

import torch
from torch import nn

from iftplan.base.errors import IftplanError, MeasureError, error_text
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.counting.passes.hints import input_hint
from iftplan.nn.meta.copies import without_data
from iftplan.nn.meta.cpu_copy import SEED, Bounded, PlainRecurrence, cpu_copy, weights_bytes
from iftplan.nn.meta.inputs import make_inputs, random_inputs
from iftplan.nn.meta.preserve import preserve

ASSUMED_ITEM: Final = (
    "The model branches on tensor values. Shapes were traced without data, so iftplan assumed True or 1."
)
FOR_THIS_INPUT: Final = (
    "The cost is counted for this input: tensor values decide how much the model computes, so it ran on the CPU with "
    f"random values (seed {SEED})."
)

Result = TypeVar("Result")


class Data(Enum):
    """Answer that a model gets when it asks for the value of a tensor."""

    ASSUMED = "True, or 1"
    OPPOSITE = "False, or 2"
    GIVEN = "the tensor"

    def item(self, dtype: torch.dtype) -> bool | int:
        """Value of a tensor that has no data, by its dtype: a truth value for bool, else a number."""
        truth, number = (False, 2) if self is Data.OPPOSITE else (True, 1)
        return truth if dtype is torch.bool else number


Look = Callable[[nn.Module, tuple[object, ...], Mapping[str, object], Data], Result]
"""One pass over a model in eval mode, and what was seen; it may do with the model what it likes."""


@dataclass(frozen=True, slots=True)
class Seen(Generic[Result]):
    """The result of one pass, the data that it ran on, and what the conditions of counting had to assume."""

    result: Result
    data: Data
    assumed: tuple[str, ...]


def look(model: nn.Module, inputs: Sequence[InputSpec], data: Data, see: Look[Result]) -> Seen[Result]:
    """Result of one pass over a copy of `model`, which itself is left as it was.

    Args:
        model: any module.
        inputs: what one forward pass takes.
        data: `GIVEN` computes with random values, any other runs on shapes alone and assumes the values asked
            for.
        see: makes the pass, given the copy, its arguments and the data.
    """
    with preserve(model):
        if data is not Data.GIVEN:
            double = without_data(model)
            args, kwargs = make_inputs(inputs)
            with counting_conditions(double) as assumed:
                result = see(double, args, kwargs, data)
            return Seen(result, data, tuple(dict.fromkeys(assumed)))
        double = cpu_copy(model, inputs)
        args, kwargs = random_inputs(inputs, double, generator=torch.Generator().manual_seed(SEED))
        with counting_conditions(double) as assumed, Bounded(weights_bytes(double)), PlainRecurrence():
            result = see(double, args, kwargs, data)
        return Seen(result, data, tuple(dict.fromkeys(assumed)))


def look_as_needed(
    model: nn.Module,
    inputs: Sequence[InputSpec],
    see: Look[Result],
    assumed: Callable[[Result], object],
    called: str,
) -> Seen[Result]:
    """Result of one pass on shapes alone if they decide it, else on values.

    Args:
        model: any module, left as it was.
        inputs: what one forward pass takes.
        see: makes the pass.
        assumed: what a result says, if some value was assumed on the way, else None. Where it is another if the
            opposite is assumed, shapes do not decide.
        called: the pass, for messages: "MyNet could not be run on 1x3".

    Raises:
        MeasureError: it fails on shapes and on values, or needs values and is too large for them.
    """
    first: Seen[Result] | None = None
    try:
        first = look(model, inputs, Data.ASSUMED, see)
        said = assumed(first.result)
        if said is None or said == _otherwise(model, inputs, see, assumed):
            return first
    except IftplanError:
        raise
    except Exception as error:
        if (
            "sparse" in str(error).lower()
        ):  # its operators lose how many values are stored, with data or without
            raise MeasureError(f"{called}: {error_text(error)}") from error
        failure: Exception | None = error
    else:
        failure = None
    try:
        return look(model, inputs, Data.GIVEN, see)
    except Exception as error:
        if failure is None:  # shapes gave an answer, on an assumption that it names
            assert first is not None
            return first
        if isinstance(error, IftplanError):
            why = "" if _is_for_want_of_data(failure) else f"{error_text(failure)}. "
            raise MeasureError(f"{called}: {why}{error}") from failure
        told = error if _is_for_want_of_data(failure) else failure
        raise MeasureError(f"{called}: {error_text(told)}{input_hint(told, model, inputs)}") from told


def _otherwise(
    model: nn.Module, inputs: Sequence[InputSpec], see: Look[Result], assumed: Callable[[Result], object]
) -> object:
    """What is said on the opposite assumption; None where the pass then fails."""
    try:
        return assumed(look(model, inputs, Data.OPPOSITE, see).result)
    except Exception:  # a model may assert what it asks
        return None


def _is_for_want_of_data(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or "meta" in str(error)
