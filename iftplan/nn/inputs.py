"""Input tensors of a forward pass, from their shapes and dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from iftplan.errors import InputError
from iftplan.spec import InputSpec

_NAMED: Final = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
    *("float", "double", "half", "long", "int"),  # torch's own short names
)
DTYPES: Final[Mapping[str, torch.dtype]] = MappingProxyType({name: getattr(torch, name) for name in _NAMED})


def matching(specs: Sequence[InputSpec], model: nn.Module) -> tuple[InputSpec, ...]:
    """The same inputs, floats in the precision of the model's first floating parameter."""
    found = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    name = str(found).removeprefix("torch.")
    return tuple(
        replace(spec, dtype=name) if dtype_of(spec).is_floating_point and found in DTYPES.values() else spec
        for spec in specs
    )


def make_inputs(
    specs: Sequence[InputSpec], device: str = "meta"
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Make the positional and the keyword inputs that `specs` describe.

    On a real device floats are 0, integers 0 (valid for every embedding) and masks 1 (nothing masked).

    Args:
        specs: inputs in their order; those with a name become keyword inputs.
        device: torch device; "meta" tensors have a shape and no memory.

    Raises:
        InputError: a dtype that torch does not have, or a name given twice.
    """
    names = [spec.name for spec in specs if spec.name]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"input {name} is given {names.count(name)} times; give each input once.")
    positional = tuple(_tensor(spec, device) for spec in specs if not spec.name)
    return positional, {spec.name: _tensor(spec, device) for spec in specs if spec.name}


def random_inputs(
    specs: Sequence[InputSpec], model: nn.Module, device: str = "cpu", generator: torch.Generator | None = None
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """As `make_inputs`, with normally distributed floats, and integers that are valid for every embedding.

    Args:
        specs: inputs in their order.
        model: whose embeddings say how many integers there are.
        device: a torch device with data.
        generator: of the values; torch's own by default.
    """
    args, kwargs = make_inputs(specs, device)
    most = min((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=2)
    for tensor in (*args, *(t for name, t in kwargs.items() if "mask" not in name)):
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
        nearest = get_close_matches(spec.dtype, DTYPES, n=3, cutoff=0.3) or ["float32"]
        raise InputError(f"input {spec}: unknown dtype {spec.dtype!r}; nearest: {', '.join(nearest)}.")
    return dtype


def _tensor(spec: InputSpec, device: str) -> Tensor:
    dtype = dtype_of(spec)
    masked = dtype is torch.bool or "mask" in (spec.name or "")
    try:
        return torch.full(spec.shape, 1 if masked else 0, dtype=dtype, device=device)
    except RuntimeError as error:
        raise InputError(f"input {spec} cannot be made: {str(error).splitlines()[0]}") from error
