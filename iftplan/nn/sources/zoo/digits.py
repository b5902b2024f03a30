"""A network for 8×8 digits: small enough to train in seconds, with everything that a plan meets in larger ones."""

from __future__ import annotations

from torch import nn

WIDTHS = (16, 32, 32)


def digits_cnn() -> nn.Module:
    """Three 3×3 convolutions, the last of stride 2, averaged and classified into 10 classes."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip((1, *WIDTHS), WIDTHS, (1, 1, 2), strict=False):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10))
