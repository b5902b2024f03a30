"""ResNet-50 (arXiv 1512.03385, strides in the 3×3 convolutions), MobileNetV2 (arXiv 1801.04381) and a U-Net (arXiv 1505.04597)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import linen
from torch import Tensor, nn


class Conv(linen.Module):
    """Convolution with the padding of its kernel, a norm and an activation."""

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    activate: bool = True

    @linen.compact
    def __call__(self, x: Any) -> Any:
        pad = self.kernel // 2
        sizes, pads = (self.kernel, self.kernel), ((pad, pad), (pad, pad))
        x = linen.Conv(
            self.features, sizes, self.stride, pads, feature_group_count=self.groups, use_bias=False
        )(x)
        x = linen.BatchNorm(use_running_average=True)(x)
        return linen.relu(x) if self.activate else x


class ResNet(linen.Module):
    """ResNet with bottlenecks."""

    width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)
    classes: int = 1000

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = Conv(self.width, 7, 2)(x)
        x = linen.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                inner, stride = self.width * 2**stage, 2 if stage and not block else 1
                y = Conv(4 * inner, 1, activate=False)(Conv(inner, 3, stride)(Conv(inner, 1)(x)))
                x = linen.relu(y + (x if block else Conv(4 * inner, 1, stride, activate=False)(x)))
        return linen.Dense(self.classes)(x.mean((1, 2)))


def resnet50(width: int = 64) -> tuple[Any, Any]:
    """ResNet-50 and its input."""
    return ResNet(width), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)


class MobileNetV2(linen.Module):
    """Inverted residuals."""

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x, width = Conv(32, 3, 2)(x), 32
        for expand, out, blocks, first in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for block in range(blocks):
                stride, inner = first if not block else 1, width * expand
                y = Conv(inner, 1)(x) if expand > 1 else x
                y = Conv(out, 1, activate=False)(Conv(inner, 3, stride, groups=inner)(y))
                x, width = (x + y if stride == 1 and width == out else y), out
        return linen.Dense(1000)(Conv(1280, 1)(x).mean((1, 2)))


def mobilenetv2() -> tuple[Any, Any]:
    """MobileNetV2 and its input."""
    return MobileNetV2(), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)


class UNet(linen.Module):
    """Three levels of two convolutions, with skips over transposed convolutions."""

    width: int = 16

    @linen.compact
    def __call__(self, x: Any) -> Any:
        skips = []
        for level in range(3):
            x = Conv(self.width * 2**level)(Conv(self.width * 2**level)(x))
            skips.append(x)
            x = linen.max_pool(x, (2, 2), (2, 2)) if level < 2 else x
        for level in (1, 0):
            x = linen.ConvTranspose(self.width * 2**level, (2, 2), (2, 2))(x)
            x = jnp.concatenate([skips[level], x], -1)
            x = Conv(self.width * 2**level)(Conv(self.width * 2**level)(x))
        return linen.Conv(4, (1, 1))(x)


def unet() -> tuple[Any, Any]:
    """The U-Net and its input."""
    return UNet(), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


class TorchUNet(nn.Module):
    """The same in PyTorch."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def pair(before: int, after: int) -> nn.Module:
            first = nn.Conv2d(before, after, 3, padding=1, bias=False)
            return nn.Sequential(
                first, nn.ReLU(), nn.Conv2d(after, after, 3, padding=1, bias=False), nn.ReLU()
            )

        self.down = nn.ModuleList([pair(3, width), pair(width, 2 * width), pair(2 * width, 4 * width)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(c * width, c * width // 2, 2, 2) for c in (4, 2)])
        self.join = nn.ModuleList([pair(c * width, c * width // 2) for c in (4, 2)])
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2) if level < 2 else x
        for up, join, skip in zip(self.up, self.join, (skips[1], skips[0]), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        out: Tensor = self.head(x)
        return out
