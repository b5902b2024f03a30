"""Device of the tensors that a model creates in its forward pass while it is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# torch.tensor stays where it is: its values are known, and models read them (sequence lengths and the like).
FACTORIES: Final = frozenset(
    {
        *(torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.linspace, torch.eye),
        *(torch.rand, torch.randn, torch.randint),
    }
)
_META: Final = torch.device("meta")


def with_device(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A factory's named arguments, its device the meta device unless one was named."""
    return kwargs if kwargs.get("device") is not None else {**kwargs, "device": _META}


class FactoriesOnMeta(TorchFunctionMode):
    """Lets `torch.zeros(3)` in a model that is written for one device work on the meta device."""

    def __init__(self, active: bool = True) -> None:
        super().__init__()
        self.active = active

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        return func(*args, **(with_device(named) if self.active and func in FACTORIES else named))


class WithoutDraws(TorchFunctionMode):
    """Leaves weights on the meta device as they are where a model draws them: there are none, and to draw takes its time."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _DRAWS:
            weight, *others = (*args, *(kwargs or {}).values())
            refused = func is not nn.init.normal_ and _is_refused(weight)
            if _has_no_values(weight) and not refused and all(map(_is_number, others)):
                return weight
        return func(*args, **(kwargs or {}))


_DRAWS: Final = frozenset(
    {
        *(nn.init.normal_, Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.clamp_),
        *(Tensor.mul_, Tensor.add_, Tensor.fill_, Tensor.zero_),
    }
)


def _has_no_values(weight: Any) -> bool:
    known = type(weight) in (Tensor, nn.Parameter)
    return known and weight.is_meta and weight.is_floating_point() and weight.layout is torch.strided


def _is_refused(weight: Any) -> bool:
    """Whether torch refuses to change it in place."""
    return weight.requires_grad and weight.is_leaf and torch.is_grad_enabled()


def _is_number(value: object) -> bool:
    return value is None or type(value) in (int, float)
