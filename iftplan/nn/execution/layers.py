"""Layers on sparse kernels: sparse ones, which keep a dense weight, and compact ones, which do not.

A sparse layer keeps its parameters, its buffers and its hooks; what its mask keeps is collected in every forward pass,
and the mask is packed again when it has changed. A compact layer's parameters are the kept values.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError
from iftplan.nn.execution.frozen import FrozenWeights
from iftplan.nn.execution.functions import kept_values, sparse_conv2d, sparse_linear
from iftplan.nn.execution.sparsity import Pattern, pattern_of
from iftplan.nn.layers.branches import is_conv1d
from iftplan.nn.layers.placeholder import placeholder
from iftplan.nn.masks.masked_weights import SUFFIX, has_mask
from iftplan.plans.speed.pricing import DENSE_ABOVE

MASK: Final = "weight" + SUFFIX


class SparseLayer(nn.Module):
    """Base of layers that keep a dense weight and compute with its kept values."""

    weight: Tensor
    dense_gradient: bool
    frozen: FrozenWeights | None
    _packed: tuple[Tensor, int, Pattern | None] | None

    def _pattern(self, x: Tensor) -> Pattern | None:
        """The layer's packed mask, or None where a dense product has to do (or does better)."""
        if not self._reads(x):
            return None
        if not has_mask(self, "weight"):
            return None
        mask = cast(Tensor, self._buffers[MASK])
        if self._packed is None or self._packed[0] is not mask or self._packed[1] != _version(mask):
            self._pack_(mask)
        assert self._packed is not None
        if (pattern := self._packed[2]) is not None and not fits(pattern, x):
            self._pack_(mask)  # the layer has another type than when its mask was packed
        return self._packed[2]

    def _pack_(self, mask: Tensor) -> None:
        pays = float(mask.float().mean()) <= DENSE_ABOVE
        self._packed = mask, _version(mask), packed_mask(self, mask) if pays else None

    def __getstate__(self) -> dict[str, Any]:
        """The layer without its packed mask: a copy's mask counts its changes anew, and could be taken for this one."""
        return {**self.__dict__, "_packed": None}

    def holds_(self, pattern: Pattern) -> None:
        """Take a pattern for that of the mask as it is now, instead of packing it again."""
        mask = cast(Tensor, self._buffers[MASK])
        self._packed = mask, _version(mask), pattern

    def _frozen(self, x: Tensor) -> FrozenWeights | None:
        """The weights that were copied for inference, or None where there are none or kernels cannot read the input."""
        if self.frozen is None or not self._reads(x):
            return None
        if not fits(self.frozen.pattern, x):
            raise InputError(
                f"a layer frozen with {self.frozen.pattern.forward.vectors.bits}-bit weights was turned to {x.dtype}; freeze the network after its type is what you compute in (execute_sparse_(network, frozen=True))."
            )
        return self.frozen

    def _reads(self, x: Tensor) -> bool:
        return is_plain(x) and x.dtype is self.weight.dtype


def _version(mask: Tensor) -> int:
    """How often a mask was changed; made under torch.inference_mode, it counts nothing."""
    return 0 if mask.is_inference() else mask._version


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


def fits(pattern: Pattern, x: Tensor) -> bool:
    """Whether kernels of a packed mask compute in an input's type."""
    return pattern.forward.vectors.bits == 8 * x.element_size()


class SparseLinear(SparseLayer, nn.Linear):
    """Sparse `torch.nn.Linear`: keeps a dense weight and computes with its kept values."""

    def forward(self, x: Tensor) -> Tensor:
        """Output of the dense layer within rounding, (…, outputs)."""
        if (frozen := self._frozen(x)) is not None:
            return frozen.linear(x, self.weight, self.bias)
        pattern = self._pattern(x)
        if pattern is None:
            return nn.Linear.forward(self, x)
        return sparse_linear(x, self.weight, self.bias, pattern, dense_gradient=self.dense_gradient)


class SparseConv2d(SparseLayer, nn.Conv2d):
    """Sparse `torch.nn.Conv2d` with one group: keeps a dense weight and computes with its kept values."""

    def forward(self, x: Tensor) -> Tensor:
        """Output of the dense layer within rounding, channels-last."""
        padding = cast(tuple[int, int], self.padding)
        if x.dim() == 4 and (frozen := self._frozen(x)) is not None:
            return frozen.conv2d(x, self.weight, self.bias, padding)
        pattern = self._pattern(x) if x.dim() == 4 else None
        if pattern is None:
            return nn.Conv2d.forward(self, x)
        return sparse_conv2d(x, self.weight, self.bias, pattern, padding, dense_gradient=self.dense_gradient)


class CompactLayer(nn.Module):
    """Base of layers that have a parameter `values`, the kept weights, instead of a dense weight."""

    values: nn.Parameter
    pattern: Pattern

    @property
    def weight(self) -> Tensor:
        """The dense weight without values, for modules that ask for its dtype."""
        mask = to_weight(torch.from_numpy(self.pattern.mask), self.pattern, self)
        answer: Tensor = placeholder(
            mask.shape,
            self.values,
            f"a module uses the weight of a {type(self).__name__} directly, but compact layers have no dense "
            "weight; restore the dense weights first (expand_).",
        )
        return answer

    def _none_of(self, x: Tensor) -> Tensor | None:
        """The output of an input without samples, which no kernel has to look at; None of any other."""
        if x.numel() or x.dtype is not self.values.dtype:
            return None
        dense = to_weight(x.new_zeros(self.pattern.mask.size), self.pattern, self)
        if isinstance(self, nn.Conv2d):
            y = self._conv_forward(x, dense, self.bias)
        else:
            y = nn.functional.linear(x, dense.T if is_conv1d(self) else dense, cast(Tensor | None, self.bias))
        with_gradient: Tensor = y + 0 * self.values.sum()  # of zeros
        return with_gradient

    def _checked(self, x: Tensor) -> Tensor:
        if not is_plain(x) or x.dtype is not self.values.dtype:
            raise InputError(
                f"a compact layer only has kernels for {self.values.dtype} on the CPU, but it was given {x.dtype} of "
                f"size {tuple(x.shape)} on {x.device} (or is traced, or under autocast); restore the dense weights "
                "first (expand_)."
            )
        return x


class CompactLinear(CompactLayer, nn.Linear):  # type: ignore[override]  # has no weight to write to
    """Compact `torch.nn.Linear`, which has nothing but the kept weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Output of the masked dense layer within rounding, (…, outputs)."""
        if (nothing := self._none_of(x)) is not None:
            return nothing
        return sparse_linear(self._checked(x), None, self.bias, self.pattern, self.values)


class CompactConv2d(CompactLayer, nn.Conv2d):  # type: ignore[override]  # as above
    """Compact `torch.nn.Conv2d` of one group, which has nothing but the kept weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Output of the masked dense layer within rounding, for a batch of images."""
        if (nothing := self._none_of(x)) is not None:
            return nothing
        padding = cast(tuple[int, int], self.padding)
        return sparse_conv2d(self._checked(x), None, self.bias, self.pattern, padding, self.values)


def packed_mask(layer: nn.Module, mask: Tensor) -> Pattern:
    """The pattern of a layer's mask, for the way in which it sweeps over its input.

    The mask of transformers' Conv1D is (inputs, outputs), as its weight.
    """
    dtype = cast(Tensor, layer.weight).dtype
    if isinstance(layer, nn.Conv2d):
        stride, dilation = cast(tuple[int, int], layer.stride), cast(tuple[int, int], layer.dilation)
        return pattern_of(mask, dtype, stride=stride, dilation=dilation)
    return pattern_of(mask.T if is_conv1d(layer) else mask, dtype)


def gather_values(layer: nn.Module, pattern: Pattern) -> Tensor:
    """Weights that a pattern keeps of a layer's weight, in the pattern's order; differentiable."""
    weight = cast(Tensor, layer.weight)
    return kept_values(weight.T if is_conv1d(layer) else weight, pattern)


def to_weight(matrix: Tensor, pattern: Pattern, module: nn.Module) -> Tensor:
    """A flat matrix in the shape of the layer's weight, channels-last for a convolution.

    Args:
        matrix: outputs × (positions · inputs), flat.
        pattern: of the weight's mask.
        module: the layer, whose class says how its weight lies.
    """
    rows = matrix.view(pattern.mask.shape)
    if isinstance(module, nn.Conv2d):
        return rows.view(len(rows), *pattern.kernel, -1).permute(0, 3, 1, 2)
    return rows.T.contiguous() if is_conv1d(module) else rows
