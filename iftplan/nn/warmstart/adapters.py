"""Low-rank adapters beside sparse weights (arXiv 2106.09685): the base is frozen, B·A is trained, then merged or kept.

    nn.add_adapters_(model, rank=4)          # beside all masked layers
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    ...
    nn.merge_adapters_(model)                # within the masks, or everywhere

Layers keep their names, weights and masks; an adapter is a part of its layer, `layer.adapter`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments, names_in
from iftplan.base.errors import InputError
from iftplan.nn.layers.adapter import NAME, Adapter, adapter_of, attach_, detach_, product
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.masks.masked_weights import MaskedWeight, has_mask, masked_weights, remove_mask_, stream
from iftplan.nn.meta.wrappers import bare
from iftplan.plans.plan import Plan, lies_within

Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def add_adapters_(
    model: Model, rank: int, *, layers: Collection[str] = (), scale: float = 1.0, seed: int = 0
) -> Model:
    """Put a low-rank adapter beside layers and freeze their weights, in place; the model computes the same at first.

    Make the optimizer afterwards, of the parameters that require gradients. Biases, norms and all other layers still train.

    Args:
        model: with masks, or without where `layers` are named.
        rank: of B·A.
        layers: by name or glob; all masked ones where none is named.
        scale: of B·A; α/r in the paper's terms.
        seed: random seed of A; B begins with zeros.

    Raises:
        InputError: there is no such layer, it has an adapter already or shares its weight, or none can stand beside it;
            nothing was changed.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> sum(p.numel() for p in add_adapters_(model, 2, layers=["0"])[0].adapter.parameters())
        32
    """
    if rank < 1:
        raise InputError(f"an adapter has a rank of 1 or more, not {rank}.")
    inner = bare(model)
    chosen = _chosen(inner, names_in("layers", layers))
    owners = _owners(inner)
    made = {}
    for name, layer in chosen.items():
        if layer._parameters.get("weight") is None:
            raise InputError(
                f"{name}: there is no adapter for a {type(layer).__name__}, which has no `weight`. Name the layers that have one with `layers`."
            )
        if adapter_of(layer) is not None:
            raise InputError(f"{name} has an adapter already; merge it first with merge_adapters_.")
        if NAME in layer._modules:
            raise InputError(f"{name} has a module {NAME} of its own, whose place an adapter would take.")
        if others := [other for other in owners[id(layer.get_parameter("weight"))] if other != name]:
            raise InputError(
                f"{name} shares its weight with {', '.join(others)}, which the adapter would freeze, and change when it is merged. Name other layers with `layers`."
            )
        try:
            made[name] = Adapter(layer, rank, scale, stream(seed, f"{name} adapter"))
        except InputError as error:
            raise InputError(f"{name}: {error} Name the layers that have one with `layers`.") from error
    for name, adapter in made.items():
        attach_(chosen[name], adapter)
        chosen[name].get_parameter("weight").requires_grad_(False)
    return model


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """Identity of a parameter → the modules that have it."""
    found: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                found.setdefault(id(parameter), []).append(path)
    return found


@check_arguments
@torch.no_grad()
def merge_adapters_(model: Model, where: Literal["masks", "everywhere"] = "masks") -> Model:
    """Add every B·A to the weight beside it and remove the adapter, in place; weights require gradients again.

    Args:
        model: with adapters.
        where: "masks" adds what the mask keeps, so that the layer stays as sparse as it is and computes something else;
            "everywhere" removes the mask, so that the layer computes the same with all of its weights.
    """
    for layer in list(bare(model).modules()):
        if (adapter := adapter_of(layer)) is None:
            continue
        detach_(layer)
        weight = layer.get_parameter("weight")
        added = _shaped(adapter.product(), weight, transposed=is_conv1d(layer))
        if has_mask(layer, "weight"):
            if where == "masks":
                added = added * layer.get_buffer("weight_mask")
            else:
                remove_mask_(MaskedWeight("weight", layer, "weight"))
        weight.add_(added)
        weight.requires_grad_(True)
    return model


@torch.no_grad()
def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a model with adapters as that of one without: what masks keep of B·A is added to the weights."""
    ends = [f"{NAME}.{part}" for part in ("up.weight", "down.weight", "scale")]
    begins = [name.removesuffix(ends[0]) for name in state if f".{name}".endswith(f".{ends[0]}")]
    beside = [layer for layer in begins if all(f"{layer}{end}" in state for end in ends)]
    own = {f"{layer}{end}" for layer in beside for end in (*ends, f"{NAME}.transposed")}
    found = {name: value for name, value in state.items() if name not in own}
    for layer in beside:
        name = f"{layer}{ends[0]}"
        down, scale = (state[f"{layer}{NAME}.{x}"] for x in ("down.weight", "scale"))
        weight, mask = found[f"{layer}weight"], found.get(f"{layer}weight_mask")
        matrix = product(state[name], down, scale)
        noted = f"{layer}{NAME}.transposed" in state
        transposed = noted or (weight.ndim == 2 and weight.shape != matrix.shape)
        added = _shaped(matrix, weight, transposed=transposed)
        found[f"{layer}weight"] = weight + (added if mask is None else added * mask)
    return found


def adapter_macs(plan: Plan, model: nn.Module) -> int:
    """MACs of all adapters in a forward pass of one sample.

    Args:
        plan: says how often each layer is applied.
        model: that was made for it.
    """
    positions = {layer.name: layer.positions for layer in plan.layers}
    found = 0
    for path, module in bare(model).named_modules():
        if (adapter := adapter_of(module)) is None:
            continue
        layer = path  # of the plan; branches and factors lie inside one
        while layer and layer not in positions:
            layer = layer.rpartition(".")[0]
        found += positions.get(layer, 0) * sum(p.numel() for p in adapter.parameters())
    return found


def _chosen(model: nn.Module, layers: Collection[str]) -> dict[str, nn.Module]:
    masked = {weight.name.rpartition(".")[0]: weight.module for weight in masked_weights(model)}
    if not layers:
        if not masked:
            raise InputError(
                f"the {type(model).__name__} has no masked layers to put adapters beside; name layers with `layers`."
            )
        return masked
    weighted = {
        x: module for x, module in model.named_modules() if module._parameters.get("weight") is not None
    }
    found = {x: m for x, m in weighted.items() if m._parameters["weight"].ndim > 1}
    for glob in layers:
        if not any(lies_within(name, glob) for name in found):
            raise InputError(
                f"there is no layer {glob!r} to put an adapter beside; there are {', '.join(list(found)[:6])}."
            )
    return {x: module for x, module in found.items() if any(lies_within(x, glob) for glob in layers)}


def _shaped(matrix: Tensor, weight: Tensor, *, transposed: bool) -> Tensor:
    return (matrix.T if transposed else matrix).reshape(weight.shape).to(weight.dtype)
