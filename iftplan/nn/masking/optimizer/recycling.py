"""Recycling of dormant neurons in any loop, with or without masks (ReDo, arXiv 2302.12902, algorithm 1).

    recycling = nn.Recycling(interval=1000, threshold=0.1)
    ...
    masks.step()
    optimizer.step()
    recycling.step_(model, optimizer, inputs, step)     # does something at every 1000th step

A mask says which weights there are, and recycling which values they have: masks and their counts stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.models.dynamic.dormant import DormantNeurons
from iftplan.nn.counting.activations.dormant import Average, observed_neurons
from iftplan.nn.counting.activations.neurons import HiddenLayer
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.layers.initial_weights import fans_of
from iftplan.nn.masking.optimizer.slots import slots
from iftplan.nn.masking.optimizer.wrappers import innermost_optimizer
from iftplan.nn.masks.masked_weights import SUFFIX, stream
from iftplan.nn.masks.shards import is_sharded
from iftplan.nn.meta.wrappers import unwrapped


@dataclass(frozen=True, slots=True)
class Recycled:
    """HiddenLayer that were recycled at one step.

    Attributes:
        found: dormant neurons that there were before, by layer.
        layers: layer → numbers of its neurons that were recycled.
    """

    found: DormantNeurons
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def neurons(self) -> int:
        """Number of recycled neurons."""
        return sum(map(len, self.layers.values()))


@dataclass(frozen=True, slots=True)
class Recycling:
    """Schedule and threshold by which dormant neurons are recycled (ReDo, arXiv 2302.12902).

    Attributes:
        interval: optimizer steps from one time to the next, ΔT.
        threshold: τ; neurons with a score of at most τ are recycled.
        end: step after which nothing is recycled; None for no such step.

    Raises:
        InputError: the interval is not positive, or the threshold negative.
    """

    interval: int = 1000
    threshold: float = 0.1
    end: int | None = None

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise InputError(
                f"the interval of recycling is {self.interval}; give a number of steps, 1 or more."
            )
        if self.threshold < 0:
            raise InputError(
                f"the threshold of recycling is {self.threshold}, but scores are 0 or more; give 0 or more, such as 0.1."
            )

    def due(self, step: int) -> bool:
        """Whether neurons are recycled after so many steps of the optimizer."""
        return step > 0 and step % self.interval == 0 and (self.end is None or step <= self.end)

    def step_(
        self, model: nn.Module, optimizer: Any, batch: Tensor | Mapping[str, Any], step: int, *, seed: int = 0
    ) -> Recycled | None:
        """Recycle the dormant neurons in place if it is time to; what was recycled, or None where it is not.

        Args:
            model: the network, as for `recycle_`.
            optimizer: of its weights.
            batch: inputs that activations are measured on.
            step: steps that the optimizer has taken.
            seed: of the fresh weights.
        """
        if not self.due(step):
            return None
        return recycle_(model, optimizer, batch, threshold=self.threshold, step=step, seed=seed)


@check_arguments
def recycle_(
    model: nn.Module,
    optimizer: Any,
    batch: Tensor | Mapping[str, Any],
    *,
    threshold: float = 0.1,
    step: int = 0,
    seed: int = 0,
    average: Average = lambda x: x,
) -> Recycled:
    """Give dormant neurons fresh incoming weights, and set their outgoing weights to zero, in place; returns which.

    Incoming weights are drawn anew as Glorot's uniform distribution has them, biases become 0, and a batch norm behind
    the layer starts again at those channels. The optimizer's state of all of them becomes 0. Under a mask only weights that it
    keeps are drawn, so no count changes. HiddenLayer of the output layer are never recycled, nor those that several
    layers write, such as the channels of a residual stream.

    Args:
        model: the network, with or without masks; wrapped by an engine or not.
        optimizer: of its weights; layers that it does not train stay as they are.
        batch: inputs that activations are measured on.
        threshold: τ; neurons with a score of at most τ are recycled.
        step: steps that the optimizer has taken, which the fresh weights depend on.
        seed: of the fresh weights.
        average: of a tensor over the processes that share a batch.

    Raises:
        InputError: weights are spread over processes, the optimizer is none, or `dormant_neurons` refuses the arguments.
    """
    network, inner = unwrapped(model), innermost_optimizer(optimizer)
    if not isinstance(inner, Optimizer):
        raise InputError(
            f"the optimizer is a {type(inner).__name__}; give one of torch.optim that trains the model."
        )
    if any(is_sharded(parameter) for parameter in network.parameters()):
        raise InputError(
            "neurons of a model whose weights are spread over processes cannot be recycled; use DDP."
        )
    found, neurons = observed_neurons(network, batch, threshold, average)
    modules = dict(network.named_modules())
    trained = _trained_alone(network, inner)
    recycled = {}
    for layer, neuron in zip(found.layers, neurons, strict=True):
        around = [modules[name] for name in (neuron.writer, *neuron.readers)]
        if layer.dormant and all(_is_plain(module) and id(module.weight) in trained for module in around):
            generator = stream(seed, f"{neuron.writer} recycled at {step}")
            _recycle_(modules, inner, neuron, torch.tensor(layer.dormant), generator)
            recycled[neuron.writer] = layer.dormant
    return Recycled(found, MappingProxyType(recycled))


def _trained_alone(network: nn.Module, optimizer: Optimizer) -> set[int]:
    """Parameters that the optimizer moves and that only one module has."""
    places: dict[int, int] = {}
    for _, parameter in network.named_parameters(remove_duplicate=False):
        places[id(parameter)] = places.get(id(parameter), 0) + 1
    moved = (p for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    return {id(p) for p in moved if places.get(id(p)) == 1}


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer has one weight of its own, in which each channel is a row or a column."""
    weight = module._parameters.get("weight")
    grouped = isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1
    return (
        weight is not None
        and not grouped
        and (weight.dim() == 2 or isinstance(module, nn.modules.conv._ConvNd))
    )


def _axes(module: nn.Module) -> tuple[int, int]:
    """Dimensions of a weight along which its outputs and its inputs lie."""
    turned = is_conv1d(module) or (isinstance(module, nn.modules.conv._ConvNd) and module.transposed)
    return (1, 0) if turned else (0, 1)


@torch.no_grad()
def _recycle_(
    modules: Mapping[str, nn.Module],
    optimizer: Optimizer,
    neurons: HiddenLayer,
    chosen: Tensor,
    generator: torch.Generator,
) -> None:
    writer = modules[neurons.writer]
    _set_(optimizer, writer, "weight", _axes(writer)[0], chosen, _fresh(writer, generator))
    if writer._parameters.get("bias") is not None:
        _set_(optimizer, writer, "bias", 0, chosen, 0.0)
    for name in neurons.norms:
        for parameter, value in (("weight", 1.0), ("bias", 0.0)):
            if modules[name]._parameters.get(parameter) is not None:
                _set_(optimizer, modules[name], parameter, 0, chosen, value)
        for buffer, value in (("running_mean", 0.0), ("running_var", 1.0)):
            running = modules[name]._buffers.get(buffer)
            if running is not None:
                running.index_fill_(0, chosen.to(running.device), value)
    for name, repeats in neurons.readers.items():
        columns = (chosen[:, None] * repeats + torch.arange(repeats)).flatten()
        _set_(optimizer, modules[name], "weight", _axes(modules[name])[1], columns, 0.0)


def _fresh(module: nn.Module, generator: torch.Generator) -> Tensor:
    """Weights from U(-a, a), a = √(6/(fan_in + fan_out)), zero off the mask (Glorot and Bengio 2010)."""
    weight, mask = module._parameters["weight"], module._buffers.get("weight" + SUFFIX)
    assert weight is not None
    fans = fans_of(module, weight)
    bound = sqrt(6 / (fans.fan_in + fans.fan_out))
    drawn = ((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound).to(weight)
    return drawn if mask is None else drawn.masked_fill(~mask, 0)


def _set_(
    optimizer: Optimizer, module: nn.Module, name: str, axis: int, chosen: Tensor, values: Tensor | float
) -> None:
    """Set slices of a parameter, and the optimizer's state of them to zero, in place.

    Args:
        optimizer: that may hold the parameter.
        module: that has it.
        name: of the parameter in the module.
        axis: along which the slices are chosen.
        chosen: their numbers.
        values: one for all, or a tensor of the parameter's shape.
    """
    parameter = module._parameters[name]
    assert parameter is not None
    places = chosen.to(parameter.device)
    for tensor, value in (
        (parameter.detach(), values),
        *((slot, 0.0) for slot in slots(optimizer, parameter)),
    ):
        if isinstance(value, Tensor):
            tensor.index_copy_(axis, places, value.index_select(axis, places))
        else:
            tensor.index_fill_(axis, places, value)
