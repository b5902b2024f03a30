"""Tensors of a model laid into those of a wider one: values, what optimizers keep of them, and masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.base.errors import InputError
from iftplan.nn.masks.masked_weights import (
    MaskedWeight,
    masked_weights,
    noted_structure,
    stream,
)
from iftplan.nn.masks.top_k import top_k_mask

Rows = Sequence[Tensor]
"""For each dimension of a tensor, the row that each row of the wider tensor copies."""


def old_rows(rows: Tensor, count: int) -> Tensor:
    """Places of `count` rows among those of a wider dimension: of each its first copy.

    Example:
        >>> old_rows(torch.tensor([0, 1, 2, 1]), 3).tolist()
        [0, 1, 2]
    """
    return torch.full((count,), len(rows)).scatter_reduce(0, rows, torch.arange(len(rows)), "amin")


def new_rows(rows: Tensor, count: int) -> Tensor:
    """Places of a wider dimension that are not `old_rows`."""
    new = torch.ones(len(rows), dtype=torch.bool)
    new[old_rows(rows, count)] = False
    return new.nonzero().flatten()


def place(tensor: Tensor, rows: Rows, fill: float = 0.0) -> Tensor:
    """A wider tensor with the old values at the old rows.

    Args:
        tensor: before.
        rows: of each dimension.
        fill: value of everything new.
    """
    for axis, copied in enumerate(rows):
        if len(copied) != tensor.shape[axis]:
            shape = [*tensor.shape[:axis], len(copied), *tensor.shape[axis + 1 :]]
            where = old_rows(copied, tensor.shape[axis]).to(tensor.device)
            tensor = tensor.new_full(shape, fill).index_copy_(axis, where, tensor)
    return tensor


def grown_optimizer(
    optimizer: Optimizer, parameters: Mapping[nn.Parameter, str], rows: Mapping[str, Rows]
) -> dict[nn.Parameter, dict[str, Any]]:
    """State of every parameter that grows, as it will be: zero for what is new, its numbers of steps unchanged.

    Args:
        optimizer: left as it is.
        parameters: of the model before it grows, with a name of each.
        rows: parameter name → rows of its dimensions.

    Raises:
        InputError: the optimizer keeps something of another shape than the parameter's, as Adafactor does.
    """
    made: dict[nn.Parameter, dict[str, Any]] = {}
    for parameter, name in parameters.items():
        state = optimizer.state.get(parameter)
        if state is None:
            continue
        made[parameter] = {}
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise InputError(
                    f"{type(optimizer).__name__} keeps {key!r} of {name} in the shape {tuple(value.shape)}, which cannot be "
                    f"grown with the parameter's {tuple(parameter.shape)}. Make a new optimizer after the growth step."
                )
            placed = isinstance(value, Tensor) and value.dim() > 0
            made[parameter][key] = place(value, rows[name]) if placed else value
    return made


def replace_parameters_(
    optimizer: Optimizer,
    successors: Mapping[nn.Parameter, nn.Parameter],
    states: Mapping[nn.Parameter, dict[str, Any]],
) -> None:
    """Let the optimizer hold the grown parameters in the places of those before, in place.

    Args:
        optimizer: of the model before it grew.
        successors: parameter before → after.
        states: what `grown_optimizer` made.
    """
    for group in optimizer.param_groups:
        group["params"] = [successors.get(parameter, parameter) for parameter in group["params"]]
    for parameter, state in states.items():
        optimizer.state.pop(parameter)
        optimizer.state[successors[parameter]] = state


def check_masks(model: nn.Module) -> None:
    """Refuse masks that have a structure, which new rows and columns would break.

    Raises:
        InputError: names the structure.
    """
    structure = noted_structure(model)
    if str(structure) != "unstructured" or any(weight.stack for weight in masked_weights(model)):
        raise InputError(
            f"the masks of {type(model).__name__} are {structure} or those of experts, and only unstructured masks of single "
            "matrices can grow. Densify the model (iftplan.nn.densify), or grow it before it is masked."
        )


def grow_masks_(
    before: Mapping[str, tuple[MaskedWeight, Tensor]], rows: Mapping[str, Rows], seed: int
) -> None:
    """Give grown weights masks of their old density, rounded down, in place.

    Old weights keep theirs. Of the new weights those with the largest values are kept, equal ones by lot.

    Args:
        before: weight name → the weight, and its mask before.
        rows: weight name → rows of its dimensions.
        seed: random seed of the lot.
    """
    for name, (weight, mask) in before.items():
        old = place(torch.ones_like(mask), rows[name], False)
        grown = place(mask, rows[name], False)
        kept = int(mask.sum())
        more = kept * grown.numel() // mask.numel() - kept
        new = (~old).flatten().nonzero().flatten()
        order = new[torch.randperm(len(new), generator=stream(seed, f"{name} growth")).to(new.device)]
        values = weight.parameter.detach().flatten()[order].abs()
        grown.view(-1)[order[top_k_mask(values[None], more)[0]]] = True
        weight.module._buffers[weight.parameter_name + "_mask"] = grown
