"""Low-rank adapter beside one layer: what it adds to the layer's output (Hu et al., arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn

from iftplan.base.errors import InputError
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.meta.called_input import called_input

NAME = "adapter"
"""Name under which an adapter is a part of its layer."""


class Adapter(nn.Module):
    """Layer that computes scale·up(down(x)): `down` has the kernel of the layer beside it and `rank` outputs, `up` is linear.

    Args:
        layer: a linear layer or a convolution without groups.
        rank: outputs of `down`.
        scale: of what is added.
        generator: of the values of `down`; `up` begins with zeros, so that nothing is added at first.

    Raises:
        InputError: there is no adapter for such a layer.
    """

    scale: Tensor
    transposed: Tensor | None

    def __init__(self, layer: nn.Module, rank: int, scale: float, generator: Generator) -> None:
        super().__init__()
        self.down, self.up = _pair(layer, rank)
        weight = self.down.weight
        values = torch.empty(weight.shape).uniform_(-1, 1, generator=generator) * weight[0].numel() ** -0.5
        weight.data.copy_(values)
        nn.init.zeros_(self.up.weight)
        self.register_buffer("scale", torch.tensor(float(scale)))
        # a state dict has to tell how the weight lies, which a square one's shape does not
        self.register_buffer("transposed", torch.tensor(True) if is_conv1d(layer) else None)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.transposed is not None:  # states of before have no word on it
            state.setdefault(f"{prefix}transposed", self.transposed)
        super()._load_from_state_dict(state, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor that is added to the layer's output."""
        added: Tensor = self.up(self.down(x)) * self.scale
        return added

    def product(self) -> Tensor:
        """Product scale·up·down as a matrix (outputs, inputs·kernel) in the layer's order."""
        return product(self.up.weight, self.down.weight, self.scale)


def product(up: Tensor, down: Tensor, scale: Tensor) -> Tensor:
    """Product scale·up·down as a matrix (outputs, inputs·kernel).

    Args:
        up: weight (outputs, rank, 1 …).
        down: weight (rank, inputs, kernel …).
        scale: a number.

    Example:
        >>> product(torch.ones(2, 1), torch.tensor([[3.0, 4.0]]), torch.tensor(0.5)).tolist()
        [[1.5, 2.0], [1.5, 2.0]]
    """
    return (up.flatten(1) @ down.flatten(1)) * scale


def attach_(layer: nn.Module, adapter: Adapter) -> None:
    """Put an adapter beside a layer, in place: its weights are parts of the layer, which keeps all names."""
    layer.add_module(NAME, adapter)
    layer.register_forward_hook(_added, with_kwargs=True)


def adapter_of(layer: nn.Module) -> Adapter | None:
    """The adapter beside a layer; None where there is none, or a module of the network's own that is called so."""
    found = layer._modules.get(NAME)
    return found if isinstance(found, Adapter) else None


def detach_(layer: nn.Module) -> None:
    """Remove the adapter beside a layer, in place, and what adds its outputs."""
    del layer._modules[NAME]
    for key, hook in list(layer._forward_hooks.items()):
        if hook is _added:
            del layer._forward_hooks[key]
            layer._forward_hooks_with_kwargs.pop(key, None)


def _added(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> Tensor:
    adapter = layer._modules.get(NAME)
    return output if adapter is None else output + adapter(called_input(layer, args, kwargs))


def _pair(layer: nn.Module, rank: int) -> tuple[Any, Any]:
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        raise InputError(
            "attention reads this layer's weight itself, so an adapter beside it would never run."
        )
    if isinstance(layer, nn.Linear):
        made: Any = (
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features, bias=False),
        )
    elif is_conv1d(layer):
        inputs, outputs = layer.get_parameter("weight").shape
        made = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
    elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups == 1:
        kind: Any = type(layer)
        down = kind(
            layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            bias=False, padding_mode=layer.padding_mode,
        )  # fmt: skip
        made = down, kind(rank, layer.out_channels, 1, bias=False)
    else:
        what = (
            f"a {type(layer).__name__} in {layer.groups} groups"
            if hasattr(layer, "groups")
            else f"a {type(layer).__name__}"
        )
        raise InputError(
            f"there is no adapter for {what}; adapters are for linear layers and convolutions without groups."
        )
    like = layer.get_parameter("weight")
    return made[0].to(like.device, like.dtype), made[1].to(like.device, like.dtype)
