"""Initial weights as pure functions of a parameter's fans, its mask and a stream of random numbers.

kaiming   variance 2/fan_out                    (He et al. 2015, arXiv 1502.01852; as arXiv 2303.11525 trains)
density   variance 2/(fan_out·density)          the fan that is active under the mask
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Final

import torch
from torch import Generator, Tensor, nn

from iftplan.base.errors import InputError
from iftplan.nn.layers.blocks import BlockLinear
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.layers.stacks import Stack


@dataclass(frozen=True, slots=True)
class Fans:
    """Inputs of one output and outputs of one input of a weight, masks aside."""

    fan_in: int
    fan_out: int


Deviation = Callable[[Fans, float], float]
"""Fans and density → the standard deviation of the weights that are kept."""


def kaiming(fans: Fans, density: float) -> float:
    """Standard deviation sqrt(2/fan_out), whatever the density (Kaiming's)."""
    return sqrt(2 / fans.fan_out)


def density_corrected(fans: Fans, density: float) -> float:
    """Standard deviation sqrt(2/(fan_out·density)): Kaiming's for the weights that are there."""
    return sqrt(2 / (fans.fan_out * density))


SCHEMES: Final[Mapping[str, Deviation]] = MappingProxyType({"kaiming": kaiming, "density": density_corrected})


def scheme_named(name: str | Deviation) -> Deviation:
    """The scheme of that name; a deviation is one itself.

    Raises:
        InputError: there is none.
    """
    if not isinstance(name, str):
        return name
    if name not in SCHEMES:
        raise InputError(
            f"there is no initialisation {name!r}; there are {', '.join(SCHEMES)}, a function of fans and density, or None."
        )
    return SCHEMES[name]


def fans_of(module: nn.Module, weight: Tensor, stack: Stack | None = None) -> Fans:
    """The fans of a module's weight in torch's layouts; groups do not see one another's channels, nor do experts.

    Args:
        module: that holds it.
        weight: of any shape.
        stack: how it holds the experts of a mixture, if it does.
    """
    if stack is not None:
        outputs, inputs = (weight.mT if stack.inputs_first else weight).shape[1:]
        return Fans(inputs, outputs)
    if isinstance(module, BlockLinear):
        outputs, inputs = weight.shape[1:]
        return Fans(inputs, outputs)
    window = weight[0, 0].numel() if weight.dim() > 1 else 1
    first, second = weight.shape[0], weight.shape[1] if weight.dim() > 1 else 1
    if isinstance(module, nn.modules.conv._ConvNd):
        inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
        return Fans(inputs * window, outputs * window)
    if is_conv1d(module):
        return Fans(first, second)
    return Fans(second * window, first * window)


@torch.no_grad()
def initialise_(weight: Tensor, mask: Tensor | None, deviation: float, generator: Generator) -> Tensor:
    """Draw a weight from N(0, deviation²) in place, zero off its mask; a weight on the meta device stays.

    Args:
        weight: any shape; returned.
        mask: True where the weight is kept; None for a dense weight.
        deviation: standard deviation of the values.
        generator: of the random numbers, on the CPU.
    """
    if weight.is_meta:
        return weight
    drawn = torch.randn(weight.shape, generator=generator) * deviation
    weight.copy_(drawn)
    return weight if mask is None else weight.masked_fill_(~mask, 0)
