"""A model with values on the CPU, for passes that shapes alone do not decide, within a limit of memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from iftplan.base.errors import MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn.meta.copies import copy_model, is_scripted, on_cpu
from iftplan.nn.meta.inputs import dtype_of
from iftplan.nn.meta.origins import origin
from iftplan.nn.meta.sparse_tensors import stored_values
from iftplan.nn.torch_internals import TorchDispatchMode, storage_address, tree_leaves, tree_map

LIMIT: Final = 4 << 30
"""Bytes that a pass with values may hold at once: the weights, the inputs, and all tensors that are alive."""
SEED: Final = 0


def cpu_copy(model: nn.Module, inputs: Sequence[InputSpec]) -> nn.Module:
    """A copy of the model on the CPU with values: its own, or those that its factory gives it from a fixed seed.

    A model on the meta device that no factory is known for gets values as its modules' `reset_parameters` draw
    them; parameters of other modules are normally distributed, scales and variances are one, other buffers zero.

    Raises:
        MeasureError: its tensors and the inputs need more memory than `LIMIT`.
    """
    tensors = [*model.parameters(), *model.buffers()]
    needed = weights_bytes(model)
    needed += sum(prod(spec.shape) * dtype_of(spec).itemsize for spec in inputs if not spec.is_value)
    if needed > LIMIT:
        raise _too_large(f"its weights and inputs alone need {_gib(needed)}")
    torch.manual_seed(SEED)
    if not any(t.is_meta for t in tensors):
        return copy_model(model, on_cpu)
    build = origin(model)
    return build() if build is not None else _drawn(model)


def weights_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses an operator before its result would bring what is alive above `LIMIT`.

    Attributes:
        alive: bytes that are held, those of the weights included.
    """

    def __init__(self, alive: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = alive
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not func.is_view:
            expected = sum(map(_bytes, _shapes_of(func, args, kwargs or {})))
            if self.alive + expected > LIMIT:
                raise _too_large(f"at {func._schema.name} it would need {_gib(self.alive + expected)}")
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided and not leaf.is_meta:
                self._hold(leaf)
        return result

    def _hold(self, tensor: Tensor) -> None:
        key, size = storage_address(tensor), tensor.untyped_storage().nbytes()
        if key not in self._holders:
            self.alive += size
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(tensor, self._release, key, size).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.alive -= size


class PlainRecurrence(TorchFunctionMode):
    """Runs `torch.lstm` as the matrix products that it is, where the CPU has one opaque kernel for all of them."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.lstm:
            return func(*args, **(kwargs or {}))
        with torch.backends.mkldnn.flags(enabled=False):
            return func(*args, **(kwargs or {}))


def _shapes_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The results without data; nothing where values decide them, or the meta device has no such operator."""

    def shape(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return torch.device("meta") if isinstance(value, torch.device) else value

    named = dict(kwargs)
    if any(argument.name == "device" for argument in func._schema.arguments):
        named["device"] = torch.device("meta")
    try:
        result = func(*tree_map(shape, args), **tree_map(shape, named))
    except Exception:
        return
    yield from (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _drawn(model: nn.Module) -> nn.Module:
    if is_scripted(model):
        raise MeasureError("it is or contains a scripted module on the meta device, which has no values.")
    double = copy_model(model, on_cpu)
    for name, parameter in double.named_parameters():
        with torch.no_grad():
            if parameter.dim() > 1:
                parameter.normal_(std=prod(parameter.shape[1:]) ** -0.5)
            elif name.endswith("weight"):
                parameter.fill_(1)
    for name, buffer in double.named_buffers():
        if name.endswith(("weight", "running_var")):  # of norms that are frozen: they divide by the variance
            buffer.fill_(1)
    for module in double.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and type(module).__module__.startswith("torch.nn."):
            reset()
    return double


def _bytes(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:  # indices are as many bytes as values, or more
        return 3 * stored_values(tensor) * max(8, tensor.element_size())
    return tensor.numel() * tensor.element_size()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _too_large(why: str) -> MeasureError:
    return MeasureError(
        "how much this model computes depends on tensor values, so it must run on the CPU with data, but "
        f"{why}; the limit is {_gib(LIMIT)}. Count a smaller input (`inputs`) or a smaller configuration of "
        "the model."
    )
