"""Masked models that run on sparse kernels.

A layer keeps its place, its parameters, its buffers and its hooks; only its class becomes a sparse one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.nn.execution.conv1d import SparseConv1D
from iftplan.nn.execution.fast_path import leave_fast_path_, restore_fast_path_
from iftplan.nn.execution.frozen import freeze
from iftplan.nn.execution.kernels.registers import require_numba
from iftplan.nn.execution.layers import (
    MASK,
    SparseConv2d,
    SparseLayer,
    SparseLinear,
    gather_values,
    packed_mask,
)
from iftplan.nn.execution.rounding import ValueType
from iftplan.nn.masks.masked_weights import SUFFIX, has_mask
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.plans.speed.pricing import DENSE_ABOVE


def sparse_classes() -> Mapping[type[nn.Module], type[SparseLayer]]:
    """Dense class → sparse one; transformers' is among them where a model can have it."""
    known: dict[type[nn.Module], type[SparseLayer]] = {
        nn.Linear: SparseLinear,
        nn.Conv2d: SparseConv2d,
        Conv1D: SparseConv1D,
    }
    if has_transformers_conv1d():
        from iftplan.nn.execution import transformers_conv1d as theirs

        known[theirs.Conv1D] = theirs.SparseTransformersConv1D
    return known


def has_transformers_conv1d() -> bool:
    """Whether someone has imported transformers' Conv1D: nobody is made to wait for it otherwise."""
    return "transformers.pytorch_utils" in sys.modules


Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def execute_sparse_(model: Model, *, frozen: bool = False, values: ValueType | None = None) -> Model:
    """Run masked linear layers and convolutions with sparse kernels, in place.

    Results equal those of the masked dense layers up to rounding. Layers that the kernels cannot run (grouped
    convolutions, padding other than zeros, densities above 0.7, other devices and types) stay dense. Frozen layers have
    kernels of their own for inputs of a few samples, as in decoding; call the model under `torch.no_grad()` for them.

    Args:
        model: masked (`iftplan.nn.apply`), or with zeros in its weights (`iftplan.nn.finalize`) if frozen.
        frozen: for inference: weights are copied now, and later changes of them have no effect.
        values: of frozen layers: "bfloat16", or "int8" with a scale for each output, rounded as by `save_sparse`. Sums are
            float32's. Fewer bytes are read for a few samples; larger batches take as long as without.

    Returns:
        The model.

    Raises:
        InputError: numba is missing, the model has no layer to run sparse, or values are asked for without frozen or of
            layers in float64.

    Example:
        >>> model = execute_sparse_(finalize(model), frozen=True, values="int8")  # doctest: +SKIP
    """
    require_numba()
    if values is not None and not frozen:
        raise InputError(
            f"values={values!r} are rounded copies for inference, and without frozen=True the layers train; give frozen=True, or leave values out."
        )
    classes = sparse_classes()
    found = [module for module in model.modules() if can_run(module, frozen)]
    if not found:
        raise InputError(without_layers(model, frozen=frozen))
    double = next((m for m in found if cast(Tensor, m.weight).dtype is torch.float64), None)
    if values is not None and double is not None:
        raise InputError(
            f"values={values!r} are summed in float32, but a {type(double).__name__} has weights in float64; convert the model first (model.float()), or leave values out."
        )
    for module in found:
        layer = cast(SparseLayer, module)
        layer.__class__ = classes.get(type(module), type(layer))
        layer.dense_gradient, layer._packed, layer.frozen = False, None, None
        if frozen:
            held = packed_mask(layer, _kept(layer))
            layer.frozen = freeze(held, gather_values(layer, held), values)
    leave_fast_path_(model)
    return model


def without_layers(model: nn.Module, *, frozen: bool = False) -> str:
    """Reason why sparse kernels find nothing to do in a model, and what helps.

    Args:
        model: without such a layer.
        frozen: whether zeros in weights would have done instead of masks.
    """
    name = type(model).__name__
    if any(hasattr(module, "values") and hasattr(module, "pattern") for module in model.modules()):
        return f"{name} is compact already; restore its dense weights first (iftplan.nn.expand_)."
    masked = [m for m in model.modules() if any(one.endswith(SUFFIX) for one in m._buffers)]
    if masked:
        return f"{name} has masks, but no layer that sparse kernels can run: they run linear layers and two-dimensional convolutions without groups, with zeros for padding, of density {DENSE_ABOVE} or less, in float32 or float64 on the CPU."
    return f"{name} has no masked linear layer or convolution; apply a plan to it first (iftplan.nn.apply){'' if frozen else ', or give frozen=True for a finalized model'}."


@check_arguments
def execute_dense_(model: Model) -> Model:
    """The model with dense layers again, as before `execute_sparse_`; changed in place."""
    back = {sparse: dense for dense, sparse in sparse_classes().items()}
    for module in model.modules():
        if isinstance(module, SparseLayer):
            module.__class__ = back[type(module)]  # type: ignore[assignment]
            for name in ("dense_gradient", "_packed", "frozen"):
                delattr(module, name)
    restore_fast_path_(model)
    return model


@check_arguments
def dense_gradients_(model: nn.Module, wanted: bool) -> None:
    """Set whether the next step computes gradients off the masks too, as RigL needs them to grow."""
    for module in model.modules():
        if isinstance(module, SparseLayer):
            module.dense_gradient = wanted


def can_run(module: nn.Module, frozen: bool) -> bool:
    """Whether kernels can run a layer that is masked, or finalized if frozen."""
    if not has_kernels(module) or cast(nn.Parameter, module.weight).device.type != "cpu":
        return False
    if not frozen:
        return has_mask(module, "weight")
    return bool(_kept(module).float().mean() <= DENSE_ABOVE)


def has_kernels(module: nn.Module) -> bool:
    """Whether there are kernels for a layer of its kind and type of numbers, on whatever device it is."""
    if type(module) not in sparse_classes() and not isinstance(module, SparseLayer):
        return False
    weight = module.weight
    if not isinstance(weight, nn.Parameter) or weight.dtype not in (torch.float32, torch.float64):
        return False
    return not isinstance(module, nn.Conv2d) or (
        module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def _kept(module: nn.Module) -> Tensor:
    """The mask, or what is not zero."""
    if has_mask(module, "weight"):
        return cast(Tensor, module._buffers[MASK])
    return cast(Tensor, module.weight).detach() != 0
