"""Arguments of a call of a JAX model, from what a user gives as its inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from iftplan.base.errors import InputError
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec

_SHAPE = re.compile(r"(\w+=)?(\d+(x\d+)+(:\w+)?|\d+:\w+)")
"""An input as it is written."""


def call_arguments(*given: object, inputs: object = None) -> tuple[object, ...]:
    """Arguments of a call: shapes that are written as text are read, all else is as it was given.

    Args:
        *given: by position.
        inputs: in place of them as one value: an argument, several in a tuple or list, or a mapping of named ones.

    Raises:
        InputError: a shape cannot be read, or a named input has none.

    Example:
        >>> [str(argument) for argument in call_arguments(inputs={"x": "2x8"})]
        ['x=2x8']
    """
    if isinstance(inputs, Mapping):
        return tuple(_named(name, value) for name, value in inputs.items())
    if inputs is not None:
        given = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    return tuple(parse_input(one) if isinstance(one, str) and _SHAPE.fullmatch(one) else one for one in given)


def _named(name: str, value: object) -> InputSpec:
    if isinstance(value, str):
        return parse_input(f"{name}={value}")
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None:
        raise InputError(
            f"the input {name} is a {type(value).__name__}; give an array, or a shape such as '2x8'."
        )
    return InputSpec(tuple(map(int, shape)), str(dtype), name)
