"""Modules of the Sparse-IFT families: parallel branches, and factorized and doped pairs, which replace one layer.

Each keeps the outer shape of the layer it replaces. The first factor carries kernel, stride, padding and
groups; the second is linear or 1×1 (arXiv 2303.11525, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from iftplan.base.errors import InfeasibleError
from iftplan.nn.layers.placeholder import placeholder
from iftplan.nn.layers.stacks import StackedLinear

Nonlinearity = Callable[[int], nn.Module]
"""Channels → what stands behind so many of them inside a member."""


def identity(channels: int) -> nn.Module:
    """Module without effect, in the place of a non-linearity."""
    return nn.Identity()


class Member(nn.Module):
    """Base of the modules that replace a layer; it has the layer's attributes (`stride`, `in_features` …).

    A host that asks for its weight, mostly for the dtype, is given one without values (`Placeholder`): whoever computes
    with it past the member's `forward` is refused.
    """

    front: ClassVar[str]  # the path of the part that tells the weight's dtype and device
    __jit_unused_properties__: ClassVar[list[str]] = ["weight", "bias"]

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, value in vars(layer).items():
            if not name.startswith("_") and name != "training" and isinstance(value, int | str | tuple):
                setattr(self, name, value)
        self.path = ""  # where it stands in the model, for messages
        self.replaced = type(layer).__name__
        self.shapes = {name: tuple(p.shape) for name, p in layer.named_parameters(recurse=False)}

    def masked_parts(self) -> tuple[str, ...]:
        """Paths of the parts whose weights a mask covers."""
        return (self.front,)

    def parts(self) -> tuple[str, ...]:
        """Paths of all parts that contract."""
        return self.masked_parts()

    def sharing_(self, other: Member) -> Self:
        """Take over another member's weights, as layers with tied weights have it; biases stay its own."""
        for part in self.parts():
            self.get_submodule(part)._parameters["weight"] = other.get_submodule(part)._parameters["weight"]
        return self

    def own_bias(self) -> nn.Parameter | None:
        """The bias that is added once, wherever it lives."""
        places = (self.get_submodule(self.front), self._modules.get("V"))
        found = (place._parameters.get("bias") for place in places if place is not None)
        return next((bias for bias in found if bias is not None), None)

    @property
    def weight(self) -> Tensor:
        """The replaced layer's weight without values."""
        answer: Tensor = self._withheld("weight")
        return answer

    @property
    def bias(self) -> Tensor | None:
        """The replaced layer's bias without values, if it had one."""
        return self._withheld("bias") if "bias" in self.shapes else None

    def _withheld(self, name: str) -> Any:
        like = getattr(self.get_submodule(self.front), "weight", None)
        layer = self.path or f"a {self.replaced}"
        return placeholder(
            self.shapes[name],
            like if isinstance(like, Tensor) else torch.empty(0),  # a quantized part's is a method
            f"the model uses the {name} of {layer} directly instead of calling the layer, but the plan replaced "
            f"it by a {type(self).__name__}, which has no such tensor. Keep this layer dense "
            f"(`keep_dense={self.path or 'its name'!r}`), or plan with the family wide, which keeps one weight.",
        )


class Parallel(Member):
    """Member of Sparse Parallel, `Σ σ(branch(x))` over layers of one shape (arXiv 2303.11525, section 3).

    Args:
        layer: the dense layer that is replaced.
        branches: how many, each of the layer's shape; the first has the bias.
        nonlinearity: channels → the module after each branch.
    """

    front = "branches.0"

    def __init__(self, layer: nn.Module, branches: int, nonlinearity: Nonlinearity = identity) -> None:
        super().__init__(layer)
        self.branches = nn.ModuleList(_like(layer, bias=i == 0) for i in range(branches))
        self.nonlinearities = nn.ModuleList(nonlinearity(outputs(layer)) for _ in range(branches))

    def masked_parts(self) -> tuple[str, ...]:
        """Paths of all branches."""
        return tuple(f"branches.{i}" for i in range(len(self.branches)))

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the branches' outputs, in the shape of the replaced layer's."""
        outputs: list[Tensor] = []  # TorchScript unrolls a loop over modules, and zip() without `strict`
        for branch, nonlinearity in zip(self.branches, self.nonlinearities):  # noqa: B905
            outputs.append(nonlinearity(branch(x)))
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total


class Factorized(Member):
    """Member of Sparse Factorized, `V(σ(U(x)))` through `rank` channels (arXiv 2303.11525, section 3).

    Args:
        layer: the dense layer that is replaced.
        rank: channels between the factors.
        nonlinearity: channels → the module between the factors.
    """

    front = "U"

    def __init__(self, layer: nn.Module, rank: int, nonlinearity: Nonlinearity = identity) -> None:
        super().__init__(layer)
        self.U, self.V = _factors(layer, rank, bias=layer.bias is not None)
        self.nonlinearity = nonlinearity(rank)

    def masked_parts(self) -> tuple[str, ...]:
        """Paths of both factors."""
        return "U", "V"

    def forward(self, x: Tensor) -> Tensor:
        """Output of both factors with the non-linearity between, in the shape of the replaced layer's."""
        out: Tensor = self.V(self.nonlinearity(self.U(x)))
        return out


class Doped(Member):
    """Member of Sparse Doped, `sparse(x) + V(σ(U(x)))`: a masked layer plus a dense pair (arXiv 2303.11525).

    Args:
        layer: the dense layer that is replaced.
        rank: channels of the low-rank path.
        nonlinearity: channels → the module between its factors.
    """

    front = "sparse"

    def __init__(self, layer: nn.Module, rank: int, nonlinearity: Nonlinearity = identity) -> None:
        super().__init__(layer)
        self.sparse = _like(layer, bias=True)
        self.U, self.V = _factors(layer, rank, bias=False)
        self.nonlinearity = nonlinearity(rank)

    def parts(self) -> tuple[str, ...]:
        """Paths of the masked layer and of both factors."""
        return "sparse", "U", "V"

    def forward(self, x: Tensor) -> Tensor:
        """Output of the masked layer plus that of the low-rank path."""
        out: Tensor = self.sparse(x) + self.V(self.nonlinearity(self.U(x)))
        return out


def options_of(layer: nn.Module) -> dict[str, Any]:
    """Device and dtype of a layer's weight, as options of a new layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return {"device": weight.device, "dtype": weight.dtype}


def _like(layer: nn.Module, *, bias: bool) -> nn.Module:
    """A fresh layer of the same class and shape."""
    return _sized(layer, None, bias=bias and layer.bias is not None)


def _sized(layer: nn.Module, out_channels: int | None, *, bias: bool) -> nn.Module:
    """The same layer with another number of outputs."""
    match layer:
        case nn.Linear():
            return nn.Linear(layer.in_features, out_channels or layer.out_features, bias, **options_of(layer))
        case nn.modules.conv._ConvNd():
            return convolution_like(
                layer, layer.in_channels, out_channels or layer.out_channels, layer.groups, bias
            )
        case StackedLinear():
            outputs = out_channels or layer.out_features
            return StackedLinear(layer.experts, layer.in_features, outputs, bias, **options_of(layer))
        case _ if is_conv1d(layer):
            weight = layer.weight
            assert isinstance(weight, Tensor)
            return nn.Linear(weight.shape[0], out_channels or weight.shape[1], bias, **options_of(layer))
        case _:
            raise InfeasibleError(
                f"{type(layer).__name__} cannot be replaced; linear layers, convolutions and transformers' Conv1D can."
            )


def convolution_like(
    layer: nn.modules.conv._ConvNd, in_channels: int, out_channels: int, groups: int, bias: bool
) -> nn.Module:
    """torch's own convolution, also under a subclass, with this layer's kernel, stride and padding.

    Args:
        layer: whose geometry it has.
        in_channels: of the new one.
        out_channels: of the new one.
        groups: of the new one.
        bias: whether it has one.
    """
    kind: Any = next(base for base in type(layer).__mro__ if base.__module__ == nn.Conv2d.__module__)
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    geometry = {name: getattr(layer, name) for name in names}
    if layer.transposed:
        geometry["output_padding"] = layer.output_padding
    fresh: nn.Module = kind(
        in_channels, out_channels, groups=groups, bias=bias, **geometry, **options_of(layer)
    )
    return fresh


def is_conv1d(layer: nn.Module) -> bool:
    """Whether a layer is transformers' Conv1D, or made of it: linear, with a weight (inputs, outputs)."""
    return any(kind.__name__ == "Conv1D" for kind in type(layer).__mro__)


def outputs(layer: nn.Module) -> int:
    """Channels that a linear layer, a convolution or transformers' Conv1D gives out."""
    size: Any = getattr(layer, "out_channels", None) or getattr(layer, "out_features", None)
    if size is None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        size = weight.shape[1]
    return int(size)


def _factors(layer: nn.Module, rank: int, *, bias: bool) -> tuple[nn.Module, nn.Module]:
    """U, to `rank` channels, and V, to the layer's outputs; the kernel is where the positions are fewest.

    Convolutions: U carries kernel, stride and groups, V is 1×1. Transposed ones: U is 1×1, V carries the kernel.
    """
    options = options_of(layer)
    if isinstance(layer, StackedLinear):
        second = StackedLinear(layer.experts, rank, layer.out_features, bias, **options)
        return _sized(layer, rank, bias=False), second
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return _sized(layer, rank, bias=False), nn.Linear(rank, outputs(layer), bias, **options)
    point: Any = getattr(nn, f"Conv{len(layer.kernel_size)}d")
    if layer.transposed:
        down = point(layer.in_channels, rank, 1, groups=layer.groups, bias=False, **options)
        return down, convolution_like(layer, rank, layer.out_channels, 1, bias)
    return _sized(layer, rank, bias=False), point(rank, layer.out_channels, 1, bias=bias, **options)
