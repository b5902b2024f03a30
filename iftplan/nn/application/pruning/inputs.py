"""What the inputs of layers are on data: squared norms, or all products of two inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from iftplan.base.errors import InputError
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.masks.masked_weights import MaskedWeight
from iftplan.nn.meta.called_input import called_input

Inputs = Tensor | Mapping[str, Any]
"""Inputs of one forward pass: a tensor, or keyword arguments."""
Summary = Callable[[Tensor], Tensor]
"""(groups, positions, inputs) to what is added up of them."""


def squares(rows: Tensor) -> Tensor:
    """‖x_j‖² of each input: (groups, inputs)."""
    return rows.square().sum(1, dtype=torch.float64)


def products(rows: Tensor) -> Tensor:
    """X·Xᵀ of the inputs, in the papers' layout of X: (groups, inputs, inputs)."""
    return (rows.mT @ rows).double()


@torch.no_grad()
def summed_inputs(
    model: nn.Module, weights: Collection[MaskedWeight], batches: Iterable[Inputs], summary: Summary
) -> dict[str, Tensor]:
    """Sum over data of a summary of each weight's inputs, by the weight's name, in the order in which layers are called.

    Args:
        model: in the mode that it is to run in.
        weights: of linear layers and convolutions.
        batches: inputs of the model.
        summary: `squares` or `products`.

    Raises:
        InputError: a weight of another kind, or of a layer that the passes do not call.
    """
    found: dict[str, Tensor] = {}
    hooks = [
        weight.module.register_forward_pre_hook(partial(_add_, found, weight, summary), with_kwargs=True)
        for weight in weights
    ]
    try:
        for batch in batches:
            model(**batch) if isinstance(batch, Mapping) else model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for weight in weights:
        if weight.name not in found:
            raise InputError(
                f"{weight.name}: its {type(weight.module).__name__} is not called by itself on the data, so its inputs are not known; prune by magnitude, or keep this layer dense."
            )
    return found


def _add_(
    found: dict[str, Tensor],
    weight: MaskedWeight,
    summary: Summary,
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    seen = summary(input_rows(weight, called_input(module, args, kwargs).detach()))
    found[weight.name] = found[weight.name] + seen if weight.name in found else seen


def input_rows(weight: MaskedWeight, x: Tensor) -> Tensor:
    """Rows that the matrix of a weight is multiplied with: (groups, positions, inputs), in the order of `to_matrix`.

    Args:
        weight: of a linear layer or a convolution.
        x: the layer's input, as the layer takes it.

    Raises:
        InputError: a weight of another kind.
    """
    module = weight.module
    if weight.stack is None and (isinstance(module, nn.Linear) or is_conv1d(module)):
        return x.reshape(1, -1, x.shape[-1]).float()
    if not isinstance(module, nn.modules.conv._ConvNd) or module.transposed:
        raise InputError(
            f"{weight.name}: the inputs of a {type(module).__name__} cannot be matched with its weights; prune by magnitude, or keep this layer dense."
        )
    return _windows(module, x.float())


def _windows(module: nn.modules.conv._ConvNd, x: Tensor) -> Tensor:
    """The windows that a convolution multiplies with its kernels, input channels fastest."""
    count, channels = len(module.kernel_size), module.in_channels // module.groups
    x = x if x.dim() == count + 2 else x.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for i in range(count):
        size, gap = module.kernel_size[i], module.dilation[i]
        # every step of dilation is in the window, and all but each gap-th are left out of it
        x = x.unfold(2 + i, (size - 1) * gap + 1, module.stride[i])[..., ::gap]
    # (n, channels, *positions, *kernel) to (groups, n·positions, kernel·channels)
    split = torch.unflatten(x, 1, (module.groups, channels)).movedim(1, 0).movedim(2, -1)
    rows: Tensor = split.reshape(module.groups, -1, channels * int(torch.tensor(module.kernel_size).prod()))
    return rows
