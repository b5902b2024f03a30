"""`load_sparse` and `load_sparse_`: networks out of small files, dense with masks or without ever a dense weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.execution.compaction import compact_layer_, pays
from iftplan.nn.execution.execute import execute_dense_, execute_sparse_, has_kernels
from iftplan.nn.execution.kernels.registers import require_numba
from iftplan.nn.execution.layers import CompactLayer
from iftplan.nn.export.sparse_files.contents import Contents
from iftplan.nn.export.sparse_files.stored_weight import StoredWeight
from iftplan.nn.masks.masked_weights import (
    SUFFIX,
    MaskedWeight,
    has_mask,
    masked_weights,
    register_mask_,
    remove_mask_,
)
from iftplan.nn.meta.wrappers import bare

Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def load_sparse(path: str | Path, *, layout: Literal["dense", "csr"] = "dense") -> dict[str, Tensor]:
    """State dict in a file that `save_sparse` wrote, on the CPU.

    Args:
        path: of the file.
        layout: of sparse weights: "dense" with their masks beside them, for `load_masked_` (to the bit what was saved, unless
            the file has a smaller type); "csr" for torch's compressed rows where a weight has two dimensions, without its mask
            and without a dense weight on the way: give it to `model.load_state_dict(state, assign=True)`.

    Raises:
        InputError: there is no such file, it is damaged or another kind of file; says which.
    """
    contents = Contents.read(Path(path))
    state = dict(contents.others)
    for name, stored in contents.weights.items():
        if layout == "csr" and stored.mask.dim() == 2:
            state[name] = _csr(stored)
            continue
        state[name] = stored.dense()
        state |= {masked + SUFFIX: stored.mask for masked in stored.masked}
    for name, first in contents.shared.items():
        state[name] = state[first]
    return state


@check_arguments
def load_sparse_(
    model: Model, path: str | Path, *, execution: Literal["dense", "sparse", "compact"] = "dense"
) -> Model:
    """Load a file that `save_sparse` wrote into a model of the same structure, in place.

    A model on the meta device gets its parameters from the file; with "compact" its sparse weights are never dense.

    Args:
        model: with or without masks of its own, which are replaced.
        path: of the file.
        execution: "dense" for weights with masks beside them, "sparse" to run them on the sparse CPU kernels
            (`execute_sparse_`), or "compact" for layers that have nothing but the kept values (`compact_`).

    Returns:
        The model.

    Raises:
        InputError: there is no such file, it is damaged or another kind of file, or kernels can run none of its layers.
        StaleError: it is of another network; nothing was changed.

    Example:
        >>> with torch.device("meta"):  # doctest: +SKIP
        ...     model = build()
        >>> load_sparse_(model, "model.safetensors", execution="compact")  # doctest: +SKIP
    """
    contents, inner = Contents.read(Path(path)), bare(model)
    _check(inner, contents, str(path))
    compact = _compactable(inner, contents) if execution == "compact" else frozenset()
    if execution != "dense":
        require_numba()
    if execution == "compact" and not compact:
        raise InputError(
            f"{path} has no linear layer or convolution that sparse kernels can run in {type(inner).__name__} on the CPU; load it with execution='dense'."
        )
    execute_dense_(inner)
    meta = any(tensor.is_meta for tensor in inner.state_dict().values())
    for weight in list(masked_weights(inner)):
        remove_mask_(weight)
    for weight, stored in _sparse(inner, contents):
        if weight.name in compact:
            values = stored.kept().to(weight.parameter.dtype)
            compact_layer_(weight.module, stored.mask, values)
        else:
            _fill_(weight, stored)
    others = {**contents.others, **_shared_others(contents)}
    if meta:  # values take the places of the model's tensors, in the model's types as ever
        own = inner.state_dict()
        others = {name: tensor.to(own[name].dtype) for name, tensor in others.items()}
    inner.load_state_dict(others, strict=False, assign=meta)
    if meta:
        _tie_(inner, contents)
    return execute_sparse_(model) if execution == "sparse" else model


def _sparse(model: nn.Module, contents: Contents) -> Iterator[tuple[MaskedWeight, StoredWeight]]:
    """Weights of a model, and what the file has for them."""
    aliases = {name: first for name, first in contents.shared.items() if first in contents.weights}
    for name in (*contents.weights, *aliases):
        path, _, local = name.rpartition(".")
        stored = contents.weights[aliases.get(name, name)]
        yield MaskedWeight(name, model.get_submodule(path), local), stored


@torch.no_grad()
def _fill_(weight: MaskedWeight, stored: StoredWeight) -> None:
    """Give a weight its values and its mask."""
    parameter = weight.parameter
    if parameter.is_meta:
        filled = nn.Parameter(stored.dense().to(parameter.dtype), parameter.requires_grad)
        weight.module._parameters[weight.parameter_name] = filled
        mask = stored.mask
    else:
        mask = stored.mask.to(parameter.device)
        parameter.zero_().masked_scatter_(mask, stored.kept().to(parameter.device, parameter.dtype))
    if weight.name in stored.masked:
        register_mask_(weight, mask, stored.structure)


def _shared_others(contents: Contents) -> dict[str, Tensor]:
    return {
        name: contents.others[first] for name, first in contents.shared.items() if first in contents.others
    }


def _tie_(model: nn.Module, contents: Contents) -> None:
    """Make parameters of a model that was on the meta device one again where the file has them once."""
    for name, first in contents.shared.items():
        (path, _, local), (other, _, there) = name.rpartition("."), first.rpartition(".")
        held = model.get_submodule(other)._parameters.get(there)
        if held is not None and local in model.get_submodule(path)._parameters:
            model.get_submodule(path)._parameters[local] = held


def _compactable(model: nn.Module, contents: Contents) -> frozenset[str]:
    """Names of the weights that kernels can run by kept values alone: as in `compact_`."""
    uses = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    return frozenset(
        weight.name
        for weight, stored in _sparse(model, contents)
        if weight.parameter_name == "weight"
        and has_kernels(weight.module)
        and weight.parameter.device.type in ("cpu", "meta")
        and uses[id(weight.parameter)] == 1
        and weight.name not in {*contents.shared, *contents.shared.values()}
        and pays(stored.mask)
    )


def _is_mask(model: nn.Module, name: str) -> bool:
    """Whether a tensor of a state dict is a weight's mask, under any name of its module."""
    path, _, local = name.rpartition(".")
    return local.endswith(SUFFIX) and has_mask(model.get_submodule(path), local.removesuffix(SUFFIX))


def _check(model: nn.Module, contents: Contents, where: str) -> None:
    """Refuse a file of another network, and a model that the file cannot give all values."""
    own = model.state_dict()
    masks = {name for name in own if _is_mask(model, name)}
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items() if name not in masks}
    given = {name: tuple(tensor.shape) for name, tensor in contents.others.items()}
    given |= {name: tuple(stored.mask.shape) for name, stored in contents.weights.items()}
    given |= {name: given[first] for name, first in contents.shared.items()}
    odd = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    odd = odd or sorted(contents.weights.keys() - parameters)
    if odd and any(isinstance(module, CompactLayer) for module in model.modules()):
        raise StaleError(
            f"this {type(model).__name__} has compact layers, which hold kept values in the place of weights; restore the weights first (iftplan.nn.expand_)."
        )
    if odd:
        raise StaleError(
            f"{where} is not of this {type(model).__name__}: {', '.join(odd[:3])}{' …' if odd[3:] else ''} {'differs' if len(odd) == 1 else 'differ'}. Apply the plan that it was trained with to the model first."
        )
    empty = next((name for name, buffer in model.named_buffers() if buffer.is_meta and name not in own), None)
    if empty is not None:
        raise InputError(
            f"{empty} is a buffer on the meta device that no state dict holds, so the file cannot give it values; build the model with values, on the CPU."
        )


def _csr(stored: StoredWeight) -> Tensor:
    """A weight of two dimensions by compressed rows."""
    counts = stored.mask.sum(1)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return torch.sparse_csr_tensor(starts, stored.mask.nonzero()[:, 1], stored.kept(), size=stored.mask.shape)
