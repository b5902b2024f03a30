"""Layer kinds as cost expressions: what a layer's weight is as a matrix, in symbols that the caller brings.

The one place that says, symbolically, what each kind costs; `LayerSpec` holds the same for numbers and a
test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

from iftplan.models.spec import Kind, LayerSpec

Expr = Any  # SymPy publishes no types
Symbols = Any
"""What has the symbols of `iftplan.families.symbols`: that module, or others of these names that can be calculated with."""


@dataclass(frozen=True, slots=True)
class LayerCost:
    """MACs per position: `copies·m·n + products`.

    Attributes:
        fan_in: m.
        fan_out: n.
        copies: how many such matrices.
        products: MACs per position between activations, A; grows with the width, not with the density.
        degree: e, how the weights grow with the width.
    """

    fan_in: Expr
    fan_out: Expr
    copies: int = 1
    products: Expr = 0
    degree: int = 2

    @property
    def dense(self) -> Expr:
        """Dense MACs per position."""
        return self.copies * self.fan_in * self.fan_out + self.products


def _convolution(layer: LayerSpec, t: Symbols) -> LayerCost:
    kernel = prod(layer.kernel)
    inputs, outputs = (1, kernel) if layer.kind.transposed else (kernel, 1)
    if layer.depthwise:
        return LayerCost(inputs, t.C_out * outputs, degree=1)
    return LayerCost(t.C_in * inputs / layer.groups, t.C_out * outputs)


def _weightless(layer: LayerSpec, t: Symbols) -> LayerCost:
    return LayerCost(0, 0)


_COSTS: Mapping[Kind, Callable[[LayerSpec, Symbols], LayerCost]] = MappingProxyType(
    {
        Kind.LINEAR: lambda layer, t: LayerCost(t.D_in / layer.groups, t.D_out, copies=layer.experts),
        **{kind: _convolution for kind in Kind if kind.spatial_dims},
        Kind.ATTENTION: lambda layer, t: LayerCost(t.D_in, t.D_in, copies=4, products=2 * t.T * t.D_in),
        Kind.EMBEDDING: _weightless,
        Kind.NORM: _weightless,
        Kind.ACTIVATION: _weightless,
    }
)


def layer_cost(layer: LayerSpec, symbols: Symbols) -> LayerCost:
    """The layer's cost in symbols, its kernel and groups filled in.

    Example:
        >>> from iftplan.families import symbols
        >>> from iftplan.models.notation import parse_layer
        >>> layer_cost(parse_layer("conv3x3"), symbols).dense
        9*C_in*C_out
    """
    return _COSTS[layer.kind](layer, symbols)
