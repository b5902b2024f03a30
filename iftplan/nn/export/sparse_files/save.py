"""`save_sparse`: a sparse network as a small file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.nn.execution.compaction import expand_
from iftplan.nn.execution.layers import CompactLayer
from iftplan.nn.export.sparse_files.contents import Contents, same_tensors
from iftplan.nn.export.sparse_files.stored_weight import stored_weight
from iftplan.nn.masks.masked_weights import SUFFIX, MaskedWeight, is_mask, masked_weights
from iftplan.nn.masks.shards import is_sharded
from iftplan.nn.meta.copies import deep_copy
from iftplan.nn.meta.wrappers import bare

VALUE_TYPES: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8)


@check_arguments
def save_sparse(model: nn.Module, path: str | Path, *, dtype: torch.dtype | None = None) -> Path:
    """Write a sparse network as a small safetensors file: kept values and the codes of their masks; returns its path.

    Every weight with a mask is stored by its kept values, and so is one of a finalized or pruned network where its zeros
    make that smaller. A mask is stored in the fewest bytes of three codes (`iftplan.nn.export.sparse_files.codes`), in
    units of its structure: one bit for a block, three for a group of 2:4. Everything else in the state dict is stored as it
    is, tensors that several names share once. `load_sparse_` and `load_sparse` read it; the model is not changed.

    Args:
        model: masked, finalized or compact, with values; whatever device it is on.
        path: of the file, which is overwritten.
        dtype: of the kept values of sparse weights: torch.bfloat16 for half the bytes, torch.int8 for a quarter with a scale
            for each output. None keeps them to the bit.

    Raises:
        InputError: nothing in the model is sparse, it has no values or is spread over processes, or the file cannot be written.

    Example:
        >>> save_sparse(model, "model.safetensors")  # doctest: +SKIP
    """
    if dtype is not None and dtype not in VALUE_TYPES:
        raise InputError(
            f"save_sparse: dtype={dtype} is no type for kept values; types are {', '.join(map(str, VALUE_TYPES))}."
        )
    inner = bare(model)
    if any(isinstance(module, CompactLayer) for module in inner.modules()):
        inner = expand_(deep_copy(inner))
    state = _state(inner)
    masks = {name for name, tensor in state.items() if is_mask(name, tensor, state)}
    plain = {name: tensor for name, tensor in state.items() if name not in masks}
    shared = same_tensors(dict(sorted(plain.items(), key=lambda item: item[0] + SUFFIX not in masks)))
    weights = {}
    for name, weight, mask in _sparse(inner):
        if name not in shared:
            names = (name, *(alias for alias, first in shared.items() if first == name))
            masked = tuple(each for each in names if each + SUFFIX in masks)
            weights[name] = stored_weight(weight, state[name], mask, masked, dtype)
    if not weights:
        raise InputError(
            f"no weight of {type(inner).__name__} has a mask or enough zeros to be stored sparse; apply a plan first (iftplan.nn.apply), or save it with safetensors.torch.save_file."
        )
    others = {name: tensor for name, tensor in plain.items() if name not in {*weights, *shared}}
    Contents(weights, others, shared).write(Path(path))
    return Path(path)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, of plain tensors with values."""
    state: dict[str, Tensor] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{name} is a {type(value).__name__} in the state dict, and a file holds tensors only."
            )
        if value.is_meta:
            raise InputError(f"{name} is on the meta device and has no values; save a model with weights.")
        if is_sharded(value):
            raise InputError(
                f"{name} is spread over processes; gather the state dict and load it into a whole model first."
            )
        if value.layout is not torch.strided:
            raise InputError(
                f"{name} is a tensor of layout {value.layout}; save the model before it is converted."
            )
    return state


def _sparse(model: nn.Module) -> Iterator[tuple[str, MaskedWeight, Tensor | None]]:
    """Weights that are stored by kept values: with their masks, or with zeros that are worth it."""
    masked = {weight.name: weight for weight in masked_weights(model)}
    for name, weight in masked.items():
        yield name, weight, weight.mask
    for path, module in model.named_modules():
        for local, parameter in module._parameters.items():
            name = f"{path}.{local}" if path else local
            if name not in masked and parameter is not None and _is_worth_it(parameter):
                yield name, MaskedWeight(name, module, local), None


def _is_worth_it(parameter: Tensor) -> bool:
    """Whether zeros take more bytes than a bit for every weight."""
    if parameter.dim() < 2 or not parameter.is_floating_point():
        return False
    return int((parameter == 0).sum()) * parameter.itemsize > parameter.numel() // 8 + 1
