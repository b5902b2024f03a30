"""Dormant neurons of a network on a batch (ReDo, arXiv 2302.12902)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.models.dynamic.dormant import DormantNeurons, LayerNeurons
from iftplan.nn.counting.activations.neurons import HiddenLayer, features_first, find_neurons
from iftplan.nn.counting.passes.conditions import counting_conditions
from iftplan.nn.meta.called_input import called_input
from iftplan.nn.meta.wrappers import unwrapped

Average = Callable[[Tensor], Tensor]
"""A tensor of this process → its mean over all processes."""


@check_arguments
def dormant_neurons(
    network: nn.Module, batch: Tensor | Mapping[str, Any], *, threshold: float = 0.1
) -> DormantNeurons:
    """Dormant neurons of a network on one batch, layer by layer: those with a score of at most the threshold.

    The score of neuron i of a layer is s_i = mean|h_i|/(mean_j mean|h_j| + 1e-9), with the mean over the batch and over
    pixels or tokens. h is what the next layer reads, behind the activation. The network runs in eval mode, so batch norms and
    dropout are not in the way, and it is left as it was.

    Args:
        network: with values, on any device.
        batch: its inputs: a tensor, or a mapping of keyword inputs.
        threshold: τ. ReDo's code has 0 as its default, and its paper uses up to 0.1.

    Raises:
        InputError: the threshold is negative, the batch is empty, or the network is on the meta device.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
        >>> _ = network[0].weight.data.copy_(torch.tensor([[1.0], [3.0], [-1.0]]))
        >>> _ = network[0].bias.data.zero_()
        >>> found = dormant_neurons(network, torch.tensor([[1.0], [2.0]]))
        >>> found.layers[0].dormant, found.share
        ((2,), Fraction(1, 3))
    """
    return observed_neurons(network, batch, threshold)[0]


def observed_neurons(
    network: nn.Module, batch: Tensor | Mapping[str, Any], threshold: float, average: Average = lambda x: x
) -> tuple[DormantNeurons, tuple[HiddenLayer, ...]]:
    """Dormant neurons of a network on one batch, and which layers write and read them.

    Args:
        network: with values, on any device.
        batch: its inputs.
        threshold: τ.
        average: over the processes that share a batch.

    Raises:
        InputError: the threshold is negative, the batch is empty, or the network is on the meta device.
    """
    network = unwrapped(network)
    if threshold < 0:
        raise InputError(
            f"the threshold is {threshold}, but scores are 0 or more; give 0 or more, such as 0.1."
        )
    if any(parameter.is_meta for parameter in network.parameters()):
        raise InputError(
            "the network is on the meta device, where activations have no values; build it on the CPU."
        )
    samples = _samples(batch)
    if not samples:
        raise InputError("the batch is empty; give at least one sample.")
    with counting_conditions(network):
        neurons, unobserved, passes = find_neurons(network, lambda: _run(network, _first(batch)))
        sizes = {
            name: average(size)
            for name, size in _sizes(network, neurons, lambda: _run(network, batch)).items()
        }
    layers = [
        LayerNeurons(x.writer, tuple(x.readers), tuple(_scores(sizes[x.writer]).tolist()), threshold)
        for x in neurons
    ]
    return DormantNeurons(threshold, samples, tuple(layers), unobserved, samples + passes), neurons


def _scores(size: Tensor) -> Tensor:
    """Scores of a layer's neurons from the mean size of each, mean|h_i|/(mean_j mean|h_j| + 1e-9)."""
    return size / (size.mean() + 1e-9)


def _sizes(network: nn.Module, neurons: tuple[HiddenLayer, ...], run: Callable[[], Any]) -> dict[str, Tensor]:
    """Mean |h| of each neuron by the layer that writes it, over all that its readers read in one pass."""
    writers = {reader: x for x in neurons for reader in x.readers}
    totals = {x.writer: torch.zeros(x.channels, dtype=torch.float64) for x in neurons}
    counts = dict.fromkeys(totals, 0)

    def hook(name: str) -> Callable[..., None]:
        def add(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            rows = features_first(called_input(module, args, kwargs).detach().abs().double(), module)
            rows = rows.reshape(writers[name].channels, -1)
            totals[writers[name].writer] += rows.sum(1).cpu()
            counts[writers[name].writer] += rows.shape[1]

        return add

    with ExitStack() as stack:
        modules = dict(network.named_modules())
        for name in writers:
            stack.callback(modules[name].register_forward_pre_hook(hook(name), with_kwargs=True).remove)
        run()
    return {name: total / counts[name] for name, total in totals.items()}


def _run(network: nn.Module, batch: Tensor | Mapping[str, Any]) -> Any:
    return network(**batch) if isinstance(batch, Mapping) else network(batch)


def _samples(batch: Tensor | Mapping[str, Any]) -> int:
    tensors = [batch] if isinstance(batch, Tensor) else [x for x in batch.values() if isinstance(x, Tensor)]
    return len(tensors[0]) if tensors and tensors[0].dim() else 0


def _first(batch: Tensor | Mapping[str, Any]) -> Any:
    """The first sample, as a batch."""
    if isinstance(batch, Mapping):
        return {name: x[:1] if isinstance(x, Tensor) else x for name, x in batch.items()}
    return batch[:1]
