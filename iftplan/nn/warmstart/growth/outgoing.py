"""Outgoing weights of new neurons, whose incoming weights are zero."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iftplan.nn.masks.masked_weights import stream
from iftplan.nn.warmstart.growth.pair import Pair


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Outgoing weights of new neurons.

    Attributes:
        weights: of the reading layer's weight: (outputs, new neurons, *kernel).
        gradient: norm of the gradient of all incoming weights that they give; None where nobody asked.
    """

    weights: Tensor
    gradient: float | None


def random_outgoing(model: nn.Module, pair: Pair, count: int, scale: float = 1.0, seed: int = 0) -> Outgoing:
    """Outgoing weights of `count` new neurons in random directions, each as long as the neurons that are there are on average.

    Args:
        model: without the new neurons.
        pair: the layers before and behind them.
        count: number of new neurons.
        scale: length of a new neuron's outgoing weights, over the mean length.
        seed: random seed of the directions.
    """
    weight = model.get_submodule(pair.outgoing).get_parameter("weight")
    shape = (count, weight.shape[0], *weight.shape[2:])
    name = f"{pair.outgoing}.weight {weight.shape[1]} growth"
    drawn = torch.randn(shape, generator=stream(seed, name), dtype=torch.double)
    drawn *= (
        scale * mean_length(weight).cpu() / drawn.flatten(1).norm(dim=1).view(-1, *[1] * (drawn.dim() - 1))
    )
    return Outgoing(drawn.transpose(0, 1).to(weight), None)


def mean_length(weight: Tensor) -> Tensor:
    """Mean length of the outgoing weights of the neurons that a layer reads."""
    lengths: Tensor = weight.detach().double().transpose(0, 1).flatten(1).norm(dim=1)
    return lengths.mean()
