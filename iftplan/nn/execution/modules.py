"""Masked layers that compute with what their masks keep.

A layer keeps its place, its parameters, its buffers and its hooks; only its class becomes one of those below. What
its mask keeps is collected in every forward pass, and the mask is packed again when it has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, nn

from iftplan.base.arguments import checked
from iftplan.base.errors import InputError
from iftplan.nn.execution.functions import kept_values, sparse_conv2d, sparse_linear
from iftplan.nn.execution.kernels.registers import require_numba
from iftplan.nn.execution.sparsity import Pattern, pattern_of
from iftplan.nn.layers.members import is_conv1d
from iftplan.nn.masks.masked_weights import SUFFIX, has_mask
from iftplan.plans.speed.pricing import DENSE_ABOVE

_MASK: Final = "weight" + SUFFIX


class SparseLayer(nn.Module):
    """What all kinds of layer share."""

    weight: Tensor
    dense_gradient: bool
    frozen: tuple[Pattern, Any] | None
    _packed: tuple[Tensor, int, Pattern | None] | None

    def _pattern(self, x: Tensor) -> Pattern | None:
        """The layer's packed mask, or None where a dense product has to do (or does better)."""
        if not is_plain(x) or x.dtype is not self.weight.dtype:
            return None
        if self.frozen is not None:
            return self.frozen[0]
        if self.dense_gradient or not has_mask(self, "weight"):
            return None
        mask = cast(Tensor, self._buffers[_MASK])
        if self._packed is None or self._packed[0] is not mask or self._packed[1] != mask._version:
            pays = float(mask.float().mean()) <= DENSE_ABOVE
            packed = packed_mask(self, mask) if pays else None
            self._packed = mask, mask._version, packed
        return self._packed[2]

    def _values(self) -> Any:
        return None if self.frozen is None else self.frozen[1]


def is_plain(x: Tensor) -> bool:
    """Whether kernels can read it: values of ours in this process's memory, and nobody tracing."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and type(x) in (Tensor, nn.Parameter)
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


class SparseLinear(SparseLayer, nn.Linear):
    """`torch.nn.Linear` with a sparse weight."""

    def forward(self, x: Tensor) -> Tensor:
        """As the dense layer's, within rounding."""
        pattern = self._pattern(x)
        if pattern is None:
            return nn.Linear.forward(self, x)
        return sparse_linear(x, self.weight, self.bias, pattern, self._values())


class SparseConv2d(SparseLayer, nn.Conv2d):
    """`torch.nn.Conv2d` with a sparse weight, one group."""

    def forward(self, x: Tensor) -> Tensor:
        """As the dense layer's, within rounding; the output is channels-last."""
        pattern = self._pattern(x) if x.dim() == 4 else None
        if pattern is None:
            return nn.Conv2d.forward(self, x)
        padding = cast(tuple[int, int], self.padding)
        return sparse_conv2d(x, self.weight, self.bias, pattern, padding, self._values())


def packed_mask(layer: nn.Module, mask: Tensor) -> Pattern:
    """The pattern of a layer's mask, for the way in which it sweeps over its input.

    The mask of transformers' Conv1D is (inputs, outputs), as its weight.
    """
    dtype = cast(Tensor, layer.weight).dtype
    if isinstance(layer, nn.Conv2d):
        stride, dilation = cast(tuple[int, int], layer.stride), cast(tuple[int, int], layer.dilation)
        return pattern_of(mask, dtype, stride=stride, dilation=dilation)
    return pattern_of(mask.T if is_conv1d(layer) else mask, dtype)


def collected(layer: nn.Module, pattern: Pattern) -> Tensor:
    """What a pattern keeps of a layer's weight; differentiable."""
    weight = cast(Tensor, layer.weight)
    return kept_values(weight.T if is_conv1d(layer) else weight, pattern)


def sparse_classes() -> Mapping[type[nn.Module], type[SparseLayer]]:
    """Dense class → sparse one; transformers' is among them where a model can have it."""
    known: dict[type[nn.Module], type[SparseLayer]] = {nn.Linear: SparseLinear, nn.Conv2d: SparseConv2d}
    if has_conv1d():
        from iftplan.nn.execution.conv1d import Conv1D, SparseConv1D

        known[Conv1D] = SparseConv1D
    return known


def has_conv1d() -> bool:
    """Whether someone has imported transformers' Conv1D: nobody is made to wait for it otherwise."""
    return "transformers.pytorch_utils" in sys.modules


Model = TypeVar("Model", bound=nn.Module)


@checked
def execute_sparse_(model: Model, *, frozen: bool = False) -> Model:
    """Let masked linear layers and convolutions compute with what their masks keep, in place.

    Results are those of the masked dense layers within rounding. Layers that kernels cannot run (grouped
    convolutions, padding other than zeros, densities above 0.7, other devices and types) go on as they are.

    Args:
        model: masked (`iftplan.nn.apply`), or with zeros in its weights (`iftplan.nn.finalize`) if frozen.
        frozen: for inference: weights are collected now, and later changes of them are not seen.

    Returns:
        The model.

    Raises:
        InputError: numba is missing, or the model has no layer to run sparse.

    Example:
        >>> model = execute_sparse_(finalize(model), frozen=True)  # doctest: +SKIP
    """
    require_numba()
    classes = sparse_classes()
    found = [module for module in model.modules() if can_run(module, frozen)]
    if not found:
        raise InputError(
            f"{type(model).__name__} has no masked linear layer or convolution on the CPU that sparse kernels can run; apply a plan to it first (iftplan.nn.apply){'' if frozen else ', or give frozen=True for a finalized model'}."
        )
    for module in found:
        layer = cast(SparseLayer, module)
        layer.__class__ = classes.get(type(module), type(layer))
        layer.dense_gradient, layer._packed, layer.frozen = False, None, None
        if frozen:
            held = packed_mask(layer, _kept(layer))
            layer.frozen = held, collected(layer, held).detach()
    return model


@checked
def execute_dense_(model: Model) -> Model:
    """As it was before `execute_sparse_`, in place."""
    back = {sparse: dense for dense, sparse in sparse_classes().items()}
    for module in model.modules():
        if isinstance(module, SparseLayer):
            module.__class__ = back[type(module)]  # type: ignore[assignment]
            for name in ("dense_gradient", "_packed", "frozen"):
                delattr(module, name)
    return model


@checked
def dense_gradients_(model: nn.Module, wanted: bool) -> None:
    """Whether the next step's gradients are wanted off the masks too, as growing by gradients does (RigL)."""
    for module in model.modules():
        if isinstance(module, SparseLayer):
            module.dense_gradient = wanted


def can_run(module: nn.Module, frozen: bool) -> bool:
    """Whether kernels can run a layer that is masked, or finalized if frozen."""
    if type(module) not in sparse_classes() and not isinstance(module, SparseLayer):
        return False
    weight = module.weight
    if not isinstance(weight, nn.Parameter) or weight.device.type != "cpu":
        return False
    if weight.dtype not in (torch.float32, torch.float64):
        return False
    if isinstance(module, nn.Conv2d) and (
        module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str)
    ):
        return False
    if not frozen:
        return has_mask(module, "weight")
    return bool(_kept(module).float().mean() <= DENSE_ABOVE)


def _kept(module: nn.Module) -> Tensor:
    """The mask, or what is not zero."""
    if has_mask(module, "weight"):
        return cast(Tensor, module._buffers[_MASK])
    return cast(Tensor, module.weight).detach() != 0
