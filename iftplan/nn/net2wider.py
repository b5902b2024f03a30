"""Trained weights at a plan's widths: channels replicated so that the wide network computes the same function.

Net2WiderNet (Chen, Goodfellow, Shlens; arXiv 1511.05641) along traced couplings: all dimensions of one width take
the same replicas, and a weight that reads replicated channels divides by how many there are of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Generator, Tensor, nn

from iftplan.errors import InfeasibleError
from iftplan.nn.masks import stream
from iftplan.polynomial import Polynomial
from iftplan.spec import Couplings

Replicas = Mapping[str, Tensor]
"""Width → for every wide channel the dense channel that it replicates."""

_KNOWN: Final = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.PReLU,
)


def widened_state(
    dense: nn.Module, couplings: Couplings, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, Tensor]:
    """Every parameter and buffer of `dense` at the widths `sizes`; without masks the function is the same.

    LayerNorm and RMSNorm keep it where every channel has as many replicas: at whole width multipliers.

    Args:
        dense: the trained model.
        couplings: what `iftplan.nn.widths.trace_widths` found of it.
        sizes: symbol → new size.
        seed: of the choice which channels are replicated beyond whole multiples.

    Raises:
        InfeasibleError: names a tensor whose channels are not plainly one width each, as in concatenations,
            flattened maps, fused projections and groups.
    """
    before = {name: width.size for name, width in couplings.widths.items()}
    replicas = {
        name: _replicas(size, sizes.get(name, size), stream(seed, f"{name} replicas"))
        for name, size in before.items()
    }
    grown = {name for name, size in before.items() if sizes.get(name, size) != size}
    modules = dict(dense.named_modules(remove_duplicate=False))
    state = {}
    for name, tensor in dense.state_dict().items():
        shape = couplings.shapes.get(name, ())
        if any(dimension.symbols & grown for dimension in shape):
            _check(name, modules[name.rpartition(".")[0]])
            changes = [_width(name, dimension, grown) for dimension in shape]
            tensor = _replicated(tensor, changes, replicas, _input_dimension(name, modules))
        state[name] = tensor
    return state


def _replicas(dense: int, wide: int, generator: Generator) -> Tensor:
    """Whole rounds of every channel, then some at random."""
    rest = torch.randperm(dense, generator=generator)[: wide % dense]
    return torch.cat([torch.arange(dense).repeat(wide // dense), rest])


def _width(name: str, dimension: Polynomial, grown: set[str]) -> str:
    """The width that a dimension is; empty where it stays."""
    if not dimension.symbols & grown:
        return ""
    symbol = next(iter(dimension.symbols))
    if dimension != Polynomial.symbol(symbol):
        raise InfeasibleError(
            f"{name} cannot be started from dense weights: its dimension {dimension} is not one plain width, so the order of its channels is not known."
        )
    return symbol


def _check(name: str, module: nn.Module) -> None:
    why = ""
    if isinstance(module, nn.GroupNorm):
        why = "the groups of its channels change their mean and variance when channels are replicated"
    elif isinstance(module, nn.modules.conv._ConvNd) and not _depthwise(module) and module.groups > 1:
        why = "its groups would mix the replicas of channels of other groups"
    elif not isinstance(module, _KNOWN) and type(module).__name__ != "Conv1D":
        why = f"how {type(module).__name__} uses it is not known"
    if why:
        raise InfeasibleError(f"{name} cannot be started from dense weights: {why}.")


def _depthwise(module: nn.modules.conv._ConvNd) -> bool:
    return module.groups == module.in_channels > 1


def _input_dimension(name: str, modules: Mapping[str, nn.Module]) -> int | None:
    """The dimension of a weight that is summed over; None where nothing is."""
    path, _, local = name.rpartition(".")
    module = modules[path]
    if local != "weight":
        return None
    if isinstance(module, nn.modules.conv._ConvNd):
        return None if _depthwise(module) else 0 if module.transposed else 1
    if type(module).__name__ == "Conv1D":
        return 0
    return 1 if isinstance(module, nn.Linear) else None


def _replicated(tensor: Tensor, widths: list[str], replicas: Replicas, summed: int | None) -> Tensor:
    for dimension, width in enumerate(widths):
        if not width:
            continue
        chosen = replicas[width].to(tensor.device)
        tensor = tensor.index_select(dimension, chosen)
        if dimension == summed:
            copies = torch.bincount(chosen)[chosen].to(tensor.dtype)
            tensor = tensor / copies.view([-1 if i == dimension else 1 for i in range(tensor.dim())])
    return tensor
