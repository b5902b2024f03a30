"""Sparse-IFT members as modules: parallel branches, factorized and doped pairs in the place of one layer.

Each keeps the outer shape of the layer it replaces. The first factor carries kernel, stride, padding and
groups; the second is linear or 1×1 (arXiv 2303.11525, section 3.1).
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from iftplan.errors import InfeasibleError


class Member(nn.Module):
    """Stands in the place of one layer and answers for it: its sizes (`stride`, `in_features` …), its weight.

    A host that asks for the weight, mostly for its dtype, is given the masked one (the first branch's, U's). One
    that computes with it by itself bypasses the member, which an audit shows as MACs that are missing.
    """

    front: ClassVar[str]  # the path of the part that answers for the weight

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, value in vars(layer).items():
            if not name.startswith("_") and name != "training" and isinstance(value, int | str | tuple):
                setattr(self, name, value)

    @property
    def weight(self) -> Tensor:
        """The front part's weight."""
        weight = self.get_submodule(self.front).weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The bias that is added once, wherever it lives."""
        return next((p for name, p in self.named_parameters() if name.endswith("bias")), None)


class Parallel(Member):
    """`Σ branch(x)` over layers of one shape."""

    front = "branches.0"

    def __init__(self, layer: nn.Module, branches: int) -> None:
        super().__init__(layer)
        self.branches = nn.ModuleList(_like(layer, bias=i == 0) for i in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the branches' outputs."""
        total: Tensor = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return total


class Factorized(Member):
    """`V(U(x))` through `rank` channels."""

    front = "U"

    def __init__(self, layer: nn.Module, rank: int) -> None:
        super().__init__(layer)
        self.U, self.V = _factors(layer, rank)

    def forward(self, x: Tensor) -> Tensor:
        """Down to the rank and up again."""
        out: Tensor = self.V(self.U(x))
        return out


class Doped(Member):
    """`sparse(x) + V(U(x))`: one masked layer beside a dense pair."""

    front = "sparse"

    def __init__(self, layer: nn.Module, rank: int) -> None:
        super().__init__(layer)
        self.sparse = _like(layer, bias=True)
        self.U, self.V = _factors(layer, rank)

    def forward(self, x: Tensor) -> Tensor:
        """The masked layer plus the low-rank path."""
        out: Tensor = self.sparse(x) + self.V(self.U(x))
        return out


def _options(layer: nn.Module) -> dict[str, Any]:
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
            return nn.Linear(layer.in_features, out_channels or layer.out_features, bias, **_options(layer))
        case nn.modules.conv._ConvNd():
            return _convolution(
                layer, layer.in_channels, out_channels or layer.out_channels, layer.groups, bias
            )
        case _ if type(layer).__name__ == "Conv1D":
            weight = layer.weight
            assert isinstance(weight, Tensor)
            return nn.Linear(weight.shape[0], out_channels or weight.shape[1], bias, **_options(layer))
        case _:
            raise InfeasibleError(
                f"{type(layer).__name__} cannot be replaced; linear layers, convolutions and transformers' Conv1D can."
            )


def _convolution(
    layer: nn.modules.conv._ConvNd, in_channels: int, out_channels: int, groups: int, bias: bool
) -> nn.Module:
    """torch's own convolution, also under a subclass, with this layer's kernel, stride and padding."""
    kind: Any = next(base for base in type(layer).__mro__ if base.__module__ == nn.Conv2d.__module__)
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    geometry = {name: getattr(layer, name) for name in names}
    if layer.transposed:
        geometry["output_padding"] = layer.output_padding
    fresh: nn.Module = kind(
        in_channels, out_channels, groups=groups, bias=bias, **geometry, **_options(layer)
    )
    return fresh


def _factors(layer: nn.Module, rank: int) -> tuple[nn.Module, nn.Module]:
    """U, to `rank` channels, and V, to the layer's outputs; the kernel is where the positions are fewest.

    Convolutions: U carries kernel, stride and groups, V is 1×1. Transposed ones: U is 1×1, V carries the kernel.
    """
    bias, options = layer.bias is not None, _options(layer)
    if not isinstance(layer, nn.modules.conv._ConvNd):
        outputs = layer.out_features if isinstance(layer, nn.Linear) else _conv1d_width(layer)
        return _sized(layer, rank, bias=False), nn.Linear(rank, outputs, bias, **options)
    point: Any = getattr(nn, f"Conv{len(layer.kernel_size)}d")
    if layer.transposed:
        down = point(layer.in_channels, rank, 1, groups=layer.groups, bias=False, **options)
        return down, _convolution(layer, rank, layer.out_channels, 1, bias)
    return _sized(layer, rank, bias=False), point(rank, layer.out_channels, 1, bias=bias, **options)


def _conv1d_width(layer: nn.Module) -> int:
    """Outputs of transformers' Conv1D, whose weight is (in, out)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1]
