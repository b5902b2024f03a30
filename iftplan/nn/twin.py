"""A model's double on the meta device: same modules, same names, no data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode

from iftplan.errors import InputError, MeasureError
from iftplan.nn.sparse import sparse_on_meta


class _WithoutData(TorchFunctionMode):
    """Lets copy.deepcopy replace every plain tensor it meets by an empty one on the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), _empty(tensor))
        return func(*args, **(kwargs or {}))


def on_meta(model: nn.Module) -> nn.Module:
    """The model itself if it is on the meta device altogether, otherwise a copy that is.

    Nothing of the original is changed and none of its data is copied; ties stay ties.

    Raises:
        MeasureError: the model holds something that cannot be copied.
    """
    return copied_to_meta(model) if _holds_data(model) else model


def copied_to_meta(model: nn.Module) -> nn.Module:
    """A copy of the model on the meta device.

    Raises:
        MeasureError: the model holds something that cannot be copied.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise MeasureError(
            f"{type(model).__name__} is or contains a scripted module, which cannot be copied without its "
            f"data; measure the module that it was scripted from, or move it first, model.to('meta'), if none "
            f"of its weights are tied."
        )
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = (
            UninitializedParameter(parameter.requires_grad, "meta", parameter.dtype)
            if is_lazy(parameter)
            else nn.Parameter(_empty(parameter), parameter.requires_grad)
        )
    try:
        with torch.no_grad(), _WithoutData():
            return copy.deepcopy(model, memo)
    except Exception as error:
        raise MeasureError(
            f"{type(model).__name__} cannot be copied to the meta device ({error}); build it there "
            f"(with torch.device('meta')) or use engine='fvcore', which runs it as it is."
        ) from error


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
