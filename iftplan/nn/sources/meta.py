"""Give up a model's memory, keep its shapes."""

from __future__ import annotations

import torch
from torch import nn


def on_meta_(model: nn.Module) -> nn.Module:
    """Replace all parameters and buffers by meta tensors; tied ones stay tied (`Module.to` unties them)."""
    emptied: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for slots in (module._parameters, module._buffers):
            for name, tensor in slots.items():
                if tensor is not None and not tensor.is_meta:
                    slots[name] = emptied.setdefault(id(tensor), _empty_like(tensor))  # type: ignore[assignment]
    return model


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty
