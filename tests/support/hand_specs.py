"""Models written down by hand, with the couplings of their widths: no framework is asked."""

from math import prod
from typing import Any

from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings, InputSpec, Kind, LayerSpec, ModelSpec, Product, WeightLayer, Width


def monomial(coefficient: int, *names: str) -> Polynomial:
    value = Polynomial.constant(coefficient)
    for name in names:
        value = value * Polynomial.symbol(name)
    return value


def conv(
    name: str, c_in: int, c_out: int, kernel: int, side: int, groups: int = 1, **role: Any
) -> WeightLayer:
    layer = LayerSpec(
        name, Kind.CONV2D, c_in, c_out, (kernel, kernel), groups, side * side, depthwise=groups == c_in > 1
    )
    return WeightLayer(layer, f"{name}.weight", "Conv2d", **role)


def linear(name: str, d_in: int, d_out: int, tokens: int = 1, **role: Any) -> WeightLayer:
    return WeightLayer(
        LayerSpec(name, Kind.LINEAR, d_in, d_out, positions=tokens), f"{name}.weight", "Linear", **role
    )


def chain(c: int = 16, e: int = 24, classes: int = 16) -> ModelSpec:
    """Stem, body, depthwise, down and head, and one product of activations; widths c and e are free.

    Every cost is a multiple of 16 MACs, as are the steps in which masked weights come and go.
    """
    layers = (
        conv("stem", 3, c, 3, 8, first=True),
        conv("body", c, c, 3, 8),
        conv("dw", c, c, 3, 8, groups=c),
        conv("down", c, e, 3, 4),
        linear("head", e, classes, last=True),
    )
    shapes = {
        "stem.weight": (monomial(1, "c"), monomial(3), monomial(3), monomial(3)),
        "body.weight": (monomial(1, "c"), monomial(1, "c"), monomial(3), monomial(3)),
        "dw.weight": (monomial(1, "c"), monomial(1), monomial(3), monomial(3)),
        "down.weight": (monomial(1, "e"), monomial(1, "c"), monomial(3), monomial(3)),
        "head.weight": (monomial(classes), monomial(1, "e")),
    }
    weight_macs = {
        "stem.weight": monomial(27 * 64, "c"),
        "body.weight": monomial(9 * 64, "c", "c"),
        "dw.weight": monomial(9 * 64, "c"),
        "down.weight": monomial(9 * 16, "c", "e"),
        "head.weight": monomial(classes, "e"),
    }
    couplings = Couplings(
        {"c": Width(c), "e": Width(e)},
        shapes,
        {"dw.groups": monomial(1, "c")},
        weight_macs,
        {"mix:matmul": monomial(2 * 16 * 16, "e")},
    )
    return ModelSpec(
        "hand:chain",
        (InputSpec((1, 3, 8, 8)),),
        layers,
        (Product("mix:matmul", "matmul", 2 * 16 * 16 * e),),
        "0" * 64,
        couplings,
    )


def mlp(sizes: tuple[int, ...] = (30, 64, 48, 10), tokens: int = 7, heads: int = 1) -> ModelSpec:
    """Linear layers in a row; every inner width is free and a multiple of `heads`."""
    names = [f"fc{i}" for i in range(1, len(sizes))]
    last = len(names) - 1
    layers = tuple(
        linear(name, d_in, d_out, tokens, first=i == 0, last=i == last)
        for i, (name, d_in, d_out) in enumerate(zip(names, sizes, sizes[1:], strict=False))
    )
    inner = {f"w{i}": Width(size, heads) for i, size in enumerate(sizes[1:-1], 1)}
    ends = [monomial(sizes[0]), *(monomial(1, name) for name in inner), monomial(sizes[-1])]
    shapes = {f"{name}.weight": (ends[i + 1], ends[i]) for i, name in enumerate(names)}
    macs = {name: monomial(tokens) * shape[0] * shape[1] for name, shape in shapes.items()}
    return ModelSpec(
        "hand:mlp", (InputSpec((tokens, sizes[0])),), layers, couplings=Couplings(inner, shapes, {}, macs)
    )


RESNETS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}
"""Depth → blocks of the four stages, and whether they are bottlenecks (arXiv 1512.03385, table 1)."""


def resnet(depth: int, classes: int = 1000, cifar: bool = False) -> ModelSpec:
    """A ResNet at 224×224, or at 32×32 with a 3×3 stem and no pooling; in bottlenecks the stride sits in the 3×3 (v1.5)."""
    depths, bottleneck = RESNETS[depth]
    layers = [conv("conv1", 3, 64, 3 if cifar else 7, 32 if cifar else 112, first=True)]
    width, side = 64, 32 if cifar else 56
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            name, neck, before = f"layer{stage + 1}.{block}", 64 << stage, side
            out = 4 * neck if bottleneck else neck
            side = side // 2 if block == 0 and stage else side
            if bottleneck:
                layers += [
                    conv(f"{name}.conv1", width, neck, 1, before),
                    conv(f"{name}.conv2", neck, neck, 3, side),
                    conv(f"{name}.conv3", neck, out, 1, side),
                ]
            else:
                layers += [
                    conv(f"{name}.conv1", width, neck, 3, side),
                    conv(f"{name}.conv2", neck, neck, 3, side),
                ]
            if width != out:
                layers.append(conv(f"{name}.downsample", width, out, 1, side))
            width = out
    layers.append(linear("fc", width, classes, last=True))
    return ModelSpec(
        f"hand:resnet{depth}", (InputSpec((1, 3, 32, 32) if cifar else (1, 3, 224, 224)),), tuple(layers)
    )


def dense_macs(spec: ModelSpec, scope: str = "model") -> int:
    """The dense MACs of a scope, added up anew from the layers' numbers."""
    total = sum(
        x.layer.positions
        * x.layer.in_channels
        // x.layer.groups
        * prod(x.layer.kernel)
        * x.layer.out_channels
        for x in spec.layers
    )
    return total + (sum(p.macs for p in spec.products) if scope == "model" else 0)
