"""Copies of a model that are run instead of it: without data, or with data of their own."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CellType, FunctionType, MethodType
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode

from iftplan.base.errors import InputError, MeasureError
from iftplan.nn.meta.sparse_tensors import sparse_on_meta

Make = Callable[[Tensor], Tensor]
Model = TypeVar("Model", bound=nn.Module)

BLOCKS: Final = "iftplan_blocks"
"""Note on a tensor of a block mask without data: its values."""


class _Replacing(TorchFunctionMode):
    """Lets copy.deepcopy replace every tensor that it meets by what `make` makes of it."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make = make

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), self.make(tensor))
        if func is Tensor.clone:  # how a parameter in a plain list copies its data
            return self.make(args[0])
        return func(*args, **(kwargs or {}))


def on_meta(model: nn.Module) -> nn.Module:
    """The model itself if it is on the meta device altogether, otherwise a copy that is.

    Nothing of the original is changed and none of its data is copied; ties stay ties.

    Raises:
        MeasureError: the model holds something that cannot be copied.
    """
    return without_data(model) if _holds_data(model) else model


def without_data(model: nn.Module) -> nn.Module:
    """A copy of the model on the meta device; ties stay ties.

    Raises:
        MeasureError: it is or contains a scripted module, which holds data that cannot be left out.
    """
    if is_scripted(model):
        if not _holds_data(model):
            return model
        raise MeasureError(
            f"{type(model).__name__} is or contains a scripted module, which cannot be copied without its data. "
            "Measure the module before scripting, or call model.to('meta') first if none of its weights are tied."
        )
    return copy_model(model, _empty)


def to_look_at(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have no data and whose other tensors are on the CPU; ties stay ties."""
    return copy_model(model, _empty, on_cpu)


def copy_model(model: nn.Module, make: Make, others: Make | None = None) -> nn.Module:
    """A copy of the model whose tensors `make` makes of the original's; ties stay ties.

    What cannot be copied (a lock, an open file, a generator of random numbers) is shared with the original.

    Args:
        model: the original, of which nothing is changed.
        make: parameter or buffer → its copy.
        others: the same for tensors that are neither; `make` if None.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = _parameter(parameter, make)
    for buffer in model.buffers():
        memo[id(buffer)] = make(buffer)
    memo.update((id(mask), _copied_mask(mask, others or make)) for mask in _block_masks(model))
    with torch.no_grad(), _Replacing(others or make):
        try:
            trial = dict(memo)
            double = copy.deepcopy(model, trial)
            ours = set(map(id, memo.values()))
            if any(id(parameter) not in ours for parameter in double.parameters()):
                double = _part_by_part(model, memo)  # it has a way of its own to be copied
            else:
                memo = trial
        except Exception:  # whatever a user's object raises when it is copied
            double = _part_by_part(model, memo)
    _rebind_(double, memo)
    return double


def _copied_mask(mask: object, make: Make) -> object:
    """A block mask of copied tensors, beside which their values are kept: which blocks a mask keeps decides what it costs."""
    double = copy.copy(mask)
    for name, value in vars(mask).items():
        if isinstance(value, Tensor):
            tensor = make(value)
            tensor.__dict__[BLOCKS] = value.detach().cpu()
            setattr(double, name, tensor)
    return double


def _block_masks(model: nn.Module) -> Iterator[object]:
    """Block masks of FlexAttention that modules hold."""
    flex = sys.modules.get("torch.nn.attention.flex_attention")
    if flex is None:
        return
    for module in model.modules():
        for value in vars(module).values():
            held = (
                value.values()
                if isinstance(value, dict)
                else value
                if isinstance(value, list | tuple)
                else (value,)
            )
            yield from (each for each in held if isinstance(each, flex.BlockMask))


def deep_copy(model: Model) -> Model:
    """The model again, with its data and what is noted on its parameters; also one that refuses `copy.deepcopy`, its weights being computed.

    Before each pass, a hook of `torch.nn.utils.weight_norm` or `spectral_norm` puts a tensor with a graph of gradients in
    the place of a parameter.
    """
    try:
        double = copy.deepcopy(model)
    except RuntimeError:
        return cast("Model", copy_model(model, clone))
    own = dict(model.named_parameters())
    for name, parameter in double.named_parameters():  # what torch leaves behind
        for key, note in vars(own.get(name, parameter)).items():
            if not isinstance(note, Tensor):
                parameter.__dict__.setdefault(key, note)
    return double


def clone(tensor: Tensor) -> Tensor:
    """A copy with the same data, apart from any graph of gradients."""
    return tensor.detach().clone()


def on_cpu(tensor: Tensor) -> Tensor:
    """A copy on the CPU; zeros for a tensor without data."""
    if tensor.is_meta:
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    return clone(tensor).cpu()


def is_scripted(model: nn.Module) -> bool:
    """Whether any of its modules is compiled by torch.jit."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def _parameter(parameter: nn.Parameter, make: Make) -> nn.Parameter:
    if is_lazy(parameter):
        return UninitializedParameter(parameter.requires_grad, "meta", parameter.dtype)
    double = nn.Parameter(make(parameter), parameter.requires_grad)
    double.__dict__.update(parameter.__dict__)  # what libraries note on it
    return double


def _part_by_part(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Every module anew, every attribute copied if it can be."""
    if id(module) in memo:
        known: nn.Module = memo[id(module)]
        return known
    double = type(module).__new__(type(module))
    memo[id(module)] = double
    children = {name: child and _part_by_part(child, memo) for name, child in module._modules.items()}
    for name, value in vars(module).items():
        if name == "_modules":
            double.__dict__[name] = children
            continue
        try:
            trial = dict(memo)
            double.__dict__[name] = copy.deepcopy(value, trial)
            memo.update(trial)
        except Exception:
            double.__dict__[name] = value
    return double


def _rebind_(double: nn.Module, memo: Mapping[int, Any]) -> None:
    """Let functions that the copy took over unchanged mean the copy, where they meant the original."""
    for module in double.modules():
        for values in (vars(module), *(v for v in vars(module).values() if isinstance(v, dict))):
            for name, value in list(values.items()):
                again = _rebound(value, memo)
                if again is not value:
                    values[name] = again


def _rebound(value: Any, memo: Mapping[int, Any]) -> Any:
    """The function with the copies of what it is bound to; the value itself if that is nothing of the model."""
    if isinstance(value, functools._lru_cache_wrapper):
        inner = _rebound(value.__wrapped__, memo)
        return value if inner is value.__wrapped__ else functools.lru_cache(**value.cache_parameters())(inner)
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if isinstance(value, FunctionType) and value.__closure__:
        cells = tuple(_cell(cell, memo) for cell in value.__closure__)
        if all(new is old for new, old in zip(cells, value.__closure__, strict=True)):
            return value
        again = FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
        again.__kwdefaults__ = value.__kwdefaults__
        again.__dict__.update(value.__dict__)
        return again
    return value


def _cell(cell: CellType, memo: Mapping[int, Any]) -> CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # empty as yet
        return cell
    if isinstance(held, nn.Module | Tensor):
        return CellType(memo[id(held)]) if id(held) in memo else cell
    again = _rebound(held, memo)
    return cell if again is held else CellType(again)


def check_ties(model: nn.Module) -> None:
    """Refuse a model whose ties were lost on the way to the meta device.

    `model.to("meta")` makes a tensor of its own for each name of a tied weight. Models of transformers say which
    of their weights are tied; of others nobody can tell.

    Raises:
        InputError: names a weight that should be tied and is not.
    """
    for path, module in model.named_modules():
        ties = getattr(module, "all_tied_weights_keys", None)
        if not isinstance(ties, Mapping) or not ties:
            continue
        own = dict(module.named_parameters(remove_duplicate=False))
        for name, other in ties.items():
            one, two = own.get(name), own.get(other)
            if one is not None and two is not None and one is not two and one.is_meta and two.is_meta:
                full = f"{path}.{name}" if path else name
                raise InputError(
                    f"{full} is no longer tied to {other}: model.to('meta') gives each name a tensor of its own. Build the model there (with torch.device('meta')), or call its tie_weights() first."
                )


def _holds_data(model: nn.Module) -> bool:
    return any(
        isinstance(value, Tensor) and not value.is_meta
        for module in model.modules()
        for values in (module._parameters, module._buffers, module.__dict__)
        for value in values.values()
    )


def _empty(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        made: Tensor = UninitializedBuffer(False, "meta", tensor.dtype)  # type: ignore[arg-type]  # torch's stub is wrong
        return made
    if tensor.layout is not torch.strided:
        return sparse_on_meta(tensor)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
