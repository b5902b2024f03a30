"""Optimizer state of masked weights: whatever has the weight's shape is zero off the mask."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from iftplan.nn.masks.shards import local, part_of


def keeps_zeros(optimizer: Optimizer) -> bool:
    """Whether a weight stays at zero through a step where it, its gradient and its state are zero.

    Optimizers that move every entry by itself do. Others mix entries, as Muon does when it orthogonalises an
    update; so may any that torch does not bring along.
    """
    return type(optimizer) in (
        optim.ASGD, optim.Adadelta, optim.Adafactor, optim.Adagrad, optim.Adam, optim.AdamW, optim.Adamax,
        optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD,
    )  # fmt: skip


def slots(optimizer: Optimizer, parameter: nn.Parameter) -> Iterator[Tensor]:
    """Tensors of the optimizer's state with the parameter's shape: momentum, moments and whatever else."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield value


@torch.no_grad()
def clear_slots_(optimizer: Optimizer, parameter: nn.Parameter, off: Tensor) -> None:
    """Set a parameter's state to zero where `off`, in place.

    Args:
        optimizer: whose state it is.
        parameter: one that the optimizer holds.
        off: boolean, of the parameter's whole shape: True where it is masked.
    """
    for slot in slots(optimizer, parameter):
        local(slot).masked_fill_(part_of(off, slot), 0)
