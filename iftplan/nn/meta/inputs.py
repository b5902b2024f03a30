"""Input tensors of a forward pass, from their shapes and dtypes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from types import MappingProxyType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec
from iftplan.nn.torch_internals import tree_leaves

_NAMED: Final = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
    *("float", "double", "half", "long", "int"),  # torch's own short names
)
DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType({name: getattr(torch, name) for name in _NAMED})

_SHAPE: Final = re.compile(r"\d+(x\d+)+(:[a-z]\w*)?|\d+:[a-z]\w*")
"""A shape as it is written, which inside a batch stands for a tensor."""

Inputs = Sequence[object] | Mapping[str, object] | Tensor
"""Specs, notations, tensors and plain values by position; keyword inputs; or one tensor. See `given_inputs`."""


def matching(specs: Sequence[InputSpec], model: nn.Module) -> tuple[InputSpec, ...]:
    """The inputs with floats in the precision of the model's first floating parameter."""
    found = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    name = str(found).removeprefix("torch.")
    return tuple(
        replace(spec, dtype=name)
        if not spec.is_value and dtype_of(spec).is_floating_point and found in DTYPES.values()
        else spec
        for spec in specs
    )


def make_inputs(specs: Sequence[InputSpec], device: str = "meta") -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the positional and the keyword inputs that `specs` describe.

    On a real device floats are 0, integers 0 (valid for every embedding) and masks 1 (nothing masked).

    Args:
        specs: inputs in their order; those with a name become keyword inputs, those with a path parts of one.
        device: torch device; "meta" tensors have a shape and no memory.

    Raises:
        InputError: a dtype that torch does not have, a name given twice, or a path that contradicts another one.
    """
    names = [spec.name for spec in specs if spec.name]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"input {name} is given {names.count(name)} times; give each input once.")
    places: list[tuple[tuple[str, ...], Any]] = []
    unnamed = 0
    for spec in specs:
        path = tuple(spec.name.split(".")) if spec.name else (str(unnamed),)
        unnamed += not spec.name
        places.append((path, spec.value if spec.is_value else _tensor(spec, device)))
    given = _assembled(places, "")
    given = dict(enumerate(given)) if isinstance(given, list) else given
    positional = sorted(int(key) for key in given if str(key).isdecimal())
    if positional != [*range(len(positional))]:
        raise InputError(
            f"inputs are given at the positions {', '.join(map(str, positional))}; positions start at 0 and leave none out."
        )
    by_position = {int(key): value for key, value in given.items() if str(key).isdecimal()}
    return (
        tuple(by_position[k] for k in positional),
        {key: value for key, value in given.items() if not str(key).isdecimal()},
    )


def _assembled(places: Sequence[tuple[tuple[str, ...], Any]], at: str) -> Any:
    """Nested dictionaries and lists out of paths; keys 0, 1, … make a list."""
    groups: dict[str, list[tuple[tuple[str, ...], Any]]] = {}
    for path, value in places:
        groups.setdefault(path[0], []).append((path[1:], value))
    result = {}
    for key, parts in groups.items():
        where = f"{at}.{key}" if at else key
        if any(not path for path, _ in parts) and len(parts) > 1:
            raise InputError(f"input {where} is given as a whole and in parts; give one of them.")
        result[key] = parts[0][1] if not parts[0][0] else _assembled(parts, where)
    if all(key.isdecimal() for key in result) and sorted(map(int, result)) == [*range(len(result))]:
        return [result[str(k)] for k in range(len(result))]
    return result


def given_inputs(given: object, model: nn.Module | str | None = None) -> tuple[InputSpec, ...]:
    """The specs of inputs as someone has them at hand: notations, specs, tensors, plain values, or a whole batch.

    Args:
        given: a dictionary holds keyword inputs, a list or tuple positional ones, anything else is one positional input.
            Dictionaries and lists inside of these are inputs that have parts. Of tensors only shape and dtype are read;
            a shape may stand in the place of a tensor, as text or as whole numbers: "8x3x32x32", (8, 3, 32, 32).
        model: whose `forward` it is for: a batch whose keys are none of its parameters is passed as a whole.

    Raises:
        InputError: a value of another kind.
    """
    if isinstance(given, Mapping):
        whole = isinstance(model, nn.Module) and not _takes(model, given)
        return tuple(_specs(given, "0") if whole else _specs(given, ""))
    items = [given] if _is_shape(given) or not isinstance(given, list | tuple) else given
    if all(map(_is_shape, items)):
        items = [InputSpec(tuple(cast("Sequence[int]", item))) for item in items]
    parts = not all(isinstance(item, str | InputSpec) or _is_leaf(item) for item in items)
    specs: list[InputSpec] = []
    position = 0
    for item in items:
        read = parse_input(item) if isinstance(item, str) else item
        if isinstance(read, InputSpec) and read.name is not None:
            specs.append(read)
        else:  # where one has parts, which are named by its position, so are all
            specs += _specs(read, str(position) if parts else "")
            position += 1
    return tuple(specs)


def _is_shape(value: object) -> bool:
    """Whether a value is the shape of a tensor in whole numbers: no network takes these by themselves."""
    return isinstance(value, list | tuple) and len(value) > 1 and all(type(size) is int for size in value)


def _takes(model: nn.Module, keywords: Mapping[str, object]) -> bool:
    try:
        signature(model.forward).bind(**keywords)
    except (TypeError, ValueError):
        return False
    return True


def _is_leaf(value: object) -> bool:
    return not isinstance(value, Mapping | list | tuple) or isinstance(value, torch.Size)


def _specs(value: object, path: str) -> Iterator[InputSpec]:
    if isinstance(value, InputSpec):
        yield replace(value, name=path or value.name)
    elif not _is_leaf(value):
        items = value.items() if isinstance(value, Mapping) else enumerate(cast("Sequence[object]", value))
        for key, item in items:
            if not re.fullmatch(r"\w+", str(key)):
                raise InputError(f"the input {path or 'batch'} has the key {key!r}; keys must be strings.")
            yield from _specs(item, f"{path}.{key}" if path else str(key))
    elif value is None or isinstance(value, bool):
        yield InputSpec((), str(value), path or None)
    elif isinstance(value, str) and _SHAPE.fullmatch(value):
        read = parse_input(value)
        yield replace(read, name=path or None)
    elif isinstance(value, int | float | str):
        kind = next(kind for kind in (int, float, str) if isinstance(value, kind))
        yield InputSpec((), f"{kind.__name__}:{value}", path or None)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        yield InputSpec(tuple(map(int, value.shape)), str(value.dtype).removeprefix("torch."), path or None)
    else:
        raise InputError(
            f"the input {path or 'given'} is of type {type(value).__name__}; give tensors, plain values, and dictionaries or lists "
            "of them, or write shapes, as in '1x3x224x224'."
        )


def random_inputs(
    specs: Sequence[InputSpec],
    model: nn.Module,
    device: str = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs that `specs` describe, with normally distributed floats and integers valid for every embedding.

    Args:
        specs: inputs in their order.
        model: whose embeddings say how many integers there are.
        device: a torch device with data.
        generator: of the values; torch's own by default.
    """
    args, kwargs = make_inputs(specs, device)
    most = min((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=2)
    given = tree_leaves((args, {name: t for name, t in kwargs.items() if "mask" not in name}))
    for tensor in (leaf for leaf in given if isinstance(leaf, Tensor)):
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        elif tensor.dtype is not torch.bool:
            tensor.copy_(torch.randint(most, tensor.shape, generator=generator))
    return args, kwargs


def dtype_of(spec: InputSpec) -> torch.dtype:
    """The dtype that an input's name of one means.

    Raises:
        InputError: torch has no such dtype.
    """
    dtype = DTYPES.get(spec.dtype.removeprefix("torch."))
    if dtype is None:
        meant = did_you_mean(spec.dtype, DTYPES, most=3, cutoff=0.3) or " It is float32 for most networks."
        raise InputError(f"input {spec}: unknown dtype {spec.dtype!r}.{meant}")
    return dtype


def _tensor(spec: InputSpec, device: str) -> Tensor:
    dtype = dtype_of(spec)
    masked = dtype is torch.bool or "mask" in (spec.name or "")
    try:
        return torch.full(spec.shape, 1 if masked else 0, dtype=dtype, device=device)
    except RuntimeError as error:
        raise InputError(f"input {spec} cannot be made: {str(error).splitlines()[0]}") from error
