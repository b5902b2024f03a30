"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), padded as in TensorFlow, where it was published.

The Sparse-IFT paper (arXiv 2303.11525, appendix B.2) trains it on CIFAR-100 and does not say in which form, and its
code has ResNet-18 alone. Assumption: the form that is usual for 32×32 images, in which the first two strides of 2 are 1
and the classifier has no dropout. It keeps the 32×32 positions that the paper's ResNet-18 keeps too.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import pad

from iftplan.nn.sources.zoo.initial_weights import draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction

EXPANSION = 6
STEM_WIDTH = 32
STAGES = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels, blocks and stride of the first block: table 2 of arXiv 1801.04381 from its third row on."""
FEATURES = 1280


def mobilenetv2() -> nn.Module:
    """MobileNetV2 with multiplier 1.0 for 1000 classes at 224×224."""
    return MobileNetV2ForImageClassification(1000)


def mobilenetv2_cifar() -> nn.Module:
    """MobileNetV2 with multiplier 1.0 for 100 classes at 32×32: stem and first expanded block have stride 1."""
    model = MobileNetV2ForImageClassification(100)
    inside = model.mobilenet_v2
    for layer in (inside.conv_stem.first_conv, inside.layer[0].get_submodule("conv_3x3")):
        convolution = layer.get_submodule("convolution")
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (1, 1)
    model.dropout.p = 0.0
    return model


class MobileNetV2ConvLayer(nn.Module):
    """Convolution, batch norm and, unless it ends a block, ReLU6; padded on the right first where that is uneven.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: its side.
        stride: in both directions.
        depthwise: one filter for each channel.
        active: with ReLU6.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        active: bool = True,
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.normalization = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.997)
        self.activation = nn.ReLU6() if active else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉)."""
        (kernel, _), (stride, _) = self.convolution.kernel_size, self.convolution.stride
        x = pad(x, (*_margins(x.shape[3], kernel, stride), *_margins(x.shape[2], kernel, stride)))
        x = self.normalization(self.convolution(x))
        return x if self.activation is None else self.activation(x)


def _margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after: as few as give ⌈size / stride⌉ positions."""
    missing = max(kernel - (size % stride or stride), 0)
    return missing // 2, missing - missing // 2


class MobileNetV2Stem(nn.Module):
    """A 3×3 convolution of stride 2 and the first block, which does not expand."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first_conv = MobileNetV2ConvLayer(3, STEM_WIDTH, 3, 2)
        self.conv_3x3 = MobileNetV2ConvLayer(STEM_WIDTH, STEM_WIDTH, 3, depthwise=True)
        self.reduce_1x1 = MobileNetV2ConvLayer(STEM_WIDTH, outputs, active=False)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, outputs, ⌈height / 2⌉, ⌈width / 2⌉)."""
        found: Tensor = self.reduce_1x1(self.conv_3x3(self.first_conv(images)))
        return found


class MobileNetV2InvertedResidual(nn.Module):
    """Expansion, depthwise 3×3 convolution and linear bottleneck, added to the input where the shape stays.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * inputs
        self.residual = stride == 1 and inputs == outputs
        self.expand_1x1 = MobileNetV2ConvLayer(inputs, hidden)
        self.conv_3x3 = MobileNetV2ConvLayer(hidden, hidden, 3, stride, depthwise=True)
        self.reduce_1x1 = MobileNetV2ConvLayer(hidden, outputs, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉)."""
        found: Tensor = self.reduce_1x1(self.conv_3x3(self.expand_1x1(x)))
        return x + found if self.residual else found


class MobileNetV2Model(nn.Module):
    """Stem, blocks, 1×1 convolution and average over positions."""

    def __init__(self) -> None:
        super().__init__()
        channels = 16
        self.conv_stem = MobileNetV2Stem(channels)
        self.layer = nn.ModuleList()
        for outputs, blocks, stride in STAGES:
            for number in range(blocks):
                self.layer.append(
                    MobileNetV2InvertedResidual(channels, outputs, stride if number == 0 else 1)
                )
                channels = outputs
        self.conv_1x1 = MobileNetV2ConvLayer(channels, FEATURES)
        self.pooler = nn.AdaptiveAvgPool2d(1)
        self.apply(draw_normal_)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, features)."""
        x = self.conv_stem(images)
        for block in self.layer:
            x = block(x)
        found: Tensor = self.pooler(self.conv_1x1(x)).flatten(1)
        return found


class MobileNetV2ForImageClassification(nn.Module):
    """MobileNetV2 with its classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.mobilenet_v2 = MobileNetV2Model()
        self.dropout = nn.Dropout(0.8, inplace=True)
        self.classifier = nn.Linear(FEATURES, classes)
        self.classifier.apply(draw_normal_)

    def forward(self, pixel_values: Tensor) -> Prediction:
        """Logits of images, (batch, 3, height, width)."""
        return Prediction(self.classifier(self.dropout(self.mobilenet_v2(pixel_values))))
