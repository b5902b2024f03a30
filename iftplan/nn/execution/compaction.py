"""Models whose parameters are the kept values: training under fixed masks without dense weights.

A dense weight, its gradient and its optimizer state have the size of the wide layer. Kept values have that of the
layer it replaces, and so has all that is done with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.nn.execution.conv1d import CompactConv1D
from iftplan.nn.execution.execute import can_run, execute_dense_, has_transformers_conv1d, without_layers
from iftplan.nn.execution.kernels.memory import memory_of
from iftplan.nn.execution.kernels.registers import require_numba
from iftplan.nn.execution.layers import (
    MASK,
    CompactConv2d,
    CompactLayer,
    CompactLinear,
    gather_values,
    packed_mask,
    to_weight,
)
from iftplan.nn.execution.sparsity import Pattern, as_array
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.plans.speed.pricing import DENSE_ABOVE


def compact_classes() -> Mapping[type[nn.Module], type[CompactLayer]]:
    """Dense class → compact one; transformers' is among them where a model can have it."""
    known: dict[type[nn.Module], type[CompactLayer]] = {
        nn.Linear: CompactLinear,
        nn.Conv2d: CompactConv2d,
        Conv1D: CompactConv1D,
    }
    if has_transformers_conv1d():
        from iftplan.nn.execution import transformers_conv1d as theirs

        known[theirs.Conv1D] = theirs.CompactTransformersConv1D
    return known


Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def compact_(model: Model) -> Model:
    """Replace masked weights by parameters that hold only the kept values, in linear layers and convolutions, in place.

    `weight` and its mask become `values`, in the order that the kernels need; make the optimizer afterwards. Weights
    that several layers share and layers that the kernels cannot run stay as they are. Masks cannot change until
    `expand_` brings the weights back. Call it before you save the model or move it to another device.

    Args:
        model: masked, on the CPU.

    Returns:
        The model.

    Raises:
        InputError: numba is missing, or the model has no layer to run sparse.
    """
    require_numba()
    execute_dense_(model)
    found = compactable(model)
    if not found:
        raise InputError(without_layers(model, frozen=True))
    for module in found:
        become_compact_(module, cast(Tensor, module._buffers.pop(MASK)))
    return model


@check_arguments
def expand_(model: Model) -> Model:
    """Restore the weights and masks that `compact_` replaced, in place; make the optimizer again.

    Args:
        model: compact or not.

    Returns:
        The model, of dense layers with masks.
    """
    for module in model.modules():
        if isinstance(module, CompactLayer):
            mask = to_weight(torch.from_numpy(module.pattern.mask.copy()), module.pattern, module)
            become_dense_(module)
            module.register_buffer(MASK, mask)
    return model


def compactable(model: nn.Module) -> list[nn.Module]:
    """Layers that can be compact: masked, with kernels, with a weight of their own, and sparse enough for it to pay."""
    uses = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    return [
        module
        for module in model.modules()
        if can_run(module, False)
        and uses[id(module.weight)] == 1
        and pays(cast(Tensor, module._buffers[MASK]))
    ]


def pays(mask: Tensor) -> bool:
    """Whether a mask leaves so much out that sparse kernels are faster than a dense product."""
    return float(mask.float().mean()) <= DENSE_ABOVE


@torch.no_grad()
def compact_layer_(module: nn.Module, mask: Tensor, kept: Tensor) -> None:
    """Make a dense layer a compact one, in place, without looking at the values of its weight.

    Args:
        module: of a class that has a compact one, without a mask; its weight may be on the meta device.
        mask: boolean, of the weight's shape.
        kept: weights in the order of the mask's own entries.
    """
    pattern = packed_mask(module, mask)
    rows = mask.T if is_conv1d(module) else mask
    places = memory_of(pattern.forward, torch.empty_like(rows, device="meta").stride()).places
    there = torch.from_numpy(places >= 0)
    values = kept.new_zeros(len(places))
    order = mask.contiguous().view(-1).nonzero().view(-1)
    values[there] = kept[torch.searchsorted(order, torch.from_numpy(places).long()[there])]
    _become_compact_(module, pattern, values)


@torch.no_grad()
def become_compact_(module: Any, mask: Tensor) -> None:
    """Make a dense layer a compact one with the values that a mask keeps of its weight, in place.

    Args:
        module: of a class that has a compact one.
        mask: boolean, of the weight's shape.
    """
    pattern = packed_mask(module, mask)
    _become_compact_(module, pattern, gather_values(module, pattern))


def _become_compact_(module: Any, pattern: Pattern, values: Tensor) -> None:
    weight = module._parameters.pop("weight")
    module.__class__ = compact_classes()[type(module)]
    module.pattern, module.values = pattern, nn.Parameter(values, weight.requires_grad)


@torch.no_grad()
def become_dense_(module: Any) -> None:
    """Make a compact layer a dense one without a mask, in place: its weight is zero where nothing is kept."""
    pattern, values = module.pattern, module._parameters.pop("values")
    module.__class__ = next(dense for dense, compact in compact_classes().items() if compact is type(module))
    del module.pattern
    dense = spread_values(values, pattern, module).contiguous()  # a convolution would hand on channels-last
    weight = nn.Parameter(dense, values.requires_grad)
    module._parameters = {"weight": weight, **module._parameters}


def spread_values(values: Tensor, pattern: Pattern, module: nn.Module) -> Tensor:
    """Numbers in the order of a layer's kept values as a dense tensor of its weight's shape, zero elsewhere.

    Args:
        values: one for each slot of the pattern.
        pattern: of the layer's mask.
        module: the layer.
    """
    return to_weight(torch.from_numpy(pattern.forward.matrix(as_array(values))), pattern, module)
