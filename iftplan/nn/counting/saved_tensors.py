"""Activation memory: what a forward pass keeps for its backward pass, each storage once."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from iftplan.nn.torch_internals import storage_address


class SavedTensors:
    """A context that adds up the bytes of all tensors that autograd saves inside, without parameters and buffers.

    A view counts with its whole storage, which it keeps. What regions of `torch.utils.checkpoint` and functions with a
    backward pass of their own keep elsewhere is not seen.

    Args:
        model: whose parameters and buffers are there anyway.

    Attributes:
        bytes: what is saved so far.
    """

    def __init__(self, model: nn.Module) -> None:
        held = (*model.parameters(), *model.buffers())
        self._seen = {storage_address(tensor) for tensor in held if _has_storage(tensor)}
        self._kept: list[Tensor] = []  # an address is used again when its storage is freed
        self._hooks = saved_tensors_hooks(self._pack, _unpack)
        self.bytes = 0

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        self._kept.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        if _has_storage(tensor):
            address = storage_address(tensor)
            if address not in self._seen:
                self._seen.add(address)
                self._kept.append(tensor.detach())
                self.bytes += tensor.untyped_storage().nbytes()
        return tensor


def _unpack(tensor: Tensor) -> Tensor:
    return tensor


def _has_storage(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and type(tensor) in (Tensor, nn.Parameter)
