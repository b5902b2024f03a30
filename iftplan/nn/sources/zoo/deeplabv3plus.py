"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) with ResNet-18 at an 8th of the size, 19 classes: the forward pass.

Sizes are those of MMSegmentation's `deeplabv3plus_r18-d8`, with which the Sparse-IFT paper trains it on Cityscapes
(arXiv 2303.11525, section 3.5): 128 channels in the head, 12 beside them from the first stage, and a stem of three 3×3
convolutions (ResNet-18 v1c). The last two stages have dilated convolutions for strides. Its auxiliary head, which
training alone needs, is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from iftplan.nn.sources.zoo.prediction import Prediction
from iftplan.nn.sources.zoo.resnet import (
    ResNetBackbone,
    ResNetConvLayer,
    ResNetShortCut,
    ResNetStage,
    resnet18_backbone,
)

FINE, COARSE = 64, 512
"""Channels of the first and the last stage, which the head reads."""
CHANNELS = 128
FINE_CHANNELS = 12
DILATIONS = (12, 24, 36)
CLASSES = 19
DROPOUT = 0.1


def deeplabv3plus_r18() -> nn.Module:
    """DeepLabV3+ with ResNet-18 for 19 classes, made for crops of 512×1024."""
    return DeepLabV3Plus()


def dilated_backbone() -> ResNetBackbone:
    """ResNet-18 v1c whose last stages keep an 8th of the size."""
    backbone = resnet18_backbone()
    narrow = FINE // 2
    stem = (ResNetConvLayer(3, narrow, 3, 2), ResNetConvLayer(narrow, narrow), ResNetConvLayer(narrow, FINE))
    backbone.embedder.add_module("embedder", nn.Sequential(*stem))
    for stage, dilation in zip(list(backbone.encoder.stages)[2:], (2, 4), strict=True):
        assert isinstance(stage, ResNetStage)
        _dilate_(stage, dilation)
    return backbone


def _dilate_(stage: ResNetStage, dilation: int) -> None:
    """Keep the size that the stage reads, changed in place: the first block has half of the dilation."""
    for block, own in zip(stage.layers.children(), (dilation // 2, dilation), strict=True):
        convolution = block.get_submodule("layer.0.convolution")
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride, convolution.dilation, convolution.padding = (1, 1), (own, own), (own, own)
        if isinstance(shortcut := block.get_submodule("shortcut"), ResNetShortCut):
            shortcut.convolution.stride = (1, 1)


class SeparableConvLayer(nn.Module):
    """Depthwise 3×3 and 1×1 convolution, each with batch norm and ReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        dilation: of the 3×3 convolution.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False
        )
        self.normalization = nn.BatchNorm2d(inputs)
        self.activation = nn.ReLU()
        self.pointwise = ResNetConvLayer(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, height, width)."""
        found: Tensor = self.pointwise(self.activation(self.normalization(self.depthwise(x))))
        return found


class AtrousPyramid(nn.Module):
    """A map seen at several distances, side by side: as a whole, at each position, and by dilated convolutions.

    Args:
        inputs: channels in.
        outputs: channels of each.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), ResNetConvLayer(inputs, outputs, 1))
        self.near = ResNetConvLayer(inputs, outputs, 1)
        self.far = nn.ModuleList(SeparableConvLayer(inputs, outputs, dilation) for dilation in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, 5 · outputs, height, width)."""
        whole = interpolate(self.whole(x), x.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat((whole, self.near(x), *(layer(x) for layer in self.far)), 1)


class DeepLabHead(nn.Module):
    """The pyramid, brought to a 4th of the size and refined beside the first stage's map, then classes."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = AtrousPyramid(COARSE, CHANNELS)
        self.bottleneck = ResNetConvLayer((2 + len(DILATIONS)) * CHANNELS, CHANNELS)
        self.fine = ResNetConvLayer(FINE, FINE_CHANNELS, 1)
        self.refine = nn.Sequential(
            SeparableConvLayer(CHANNELS + FINE_CHANNELS, CHANNELS), SeparableConvLayer(CHANNELS, CHANNELS)
        )
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = nn.Conv2d(CHANNELS, CLASSES, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Maps of the first and the last stage → (batch, classes, height / 4, width / 4)."""
        fine = self.fine(fine)
        x = self.bottleneck(self.pyramid(coarse))
        x = interpolate(x, fine.shape[2:], mode="bilinear", align_corners=False)
        found: Tensor = self.classifier(self.dropout(self.refine(torch.cat((x, fine), 1))))
        return found


class DeepLabV3Plus(nn.Module):
    """Backbone and head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = dilated_backbone()
        self.head = DeepLabHead()

    def forward(self, pixel_values: Tensor) -> Prediction:
        """Logits of every pixel, (batch, classes, height, width), of images (batch, 3, height, width)."""
        first, *_, last = self.backbone(pixel_values)
        logits = self.head(first, last)
        size = pixel_values.shape[2:]
        return Prediction(interpolate(logits, size, mode="bilinear", align_corners=False))
