"""ResNets (He et al. 2015, arXiv 1512.03385) for ImageNet and, with another stem, for CIFAR.

Shortcuts that change the width are 1×1 convolutions (option B of section 3.3). A bottleneck's stride is in its 3×3
convolution, which is known as v1.5. The CIFAR form (3×3 stride-1 stem, no max pooling, 100 classes) is the one of the
Sparse-IFT paper (arXiv 2303.11525).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from iftplan.nn.sources.zoo.initial_weights import draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction


def resnet18() -> nn.Module:
    """ResNet-18 for 1000 classes at 224×224."""
    return _basic((2, 2, 2, 2), 1000)


def resnet34() -> nn.Module:
    """ResNet-34 for 1000 classes at 224×224."""
    return _basic((3, 4, 6, 3), 1000)


def resnet50() -> nn.Module:
    """ResNet-50 v1.5 for 1000 classes at 224×224: the 3×3 convolution of a bottleneck carries the stride."""
    return _bottlenecks(1000)


def resnet18_cifar() -> nn.Module:
    """ResNet-18 for 100 classes at 32×32."""
    return _with_cifar_stem(_basic((2, 2, 2, 2), 100))


def resnet34_cifar() -> nn.Module:
    """ResNet-34 for 100 classes at 32×32."""
    return _with_cifar_stem(_basic((3, 4, 6, 3), 100))


def resnet50_cifar() -> nn.Module:
    """ResNet-50 v1.5 for 100 classes at 32×32."""
    return _with_cifar_stem(_bottlenecks(100))


def resnet8_cifar() -> nn.Module:
    """ResNet-8 of width 8 for 10 classes at 32×32: three stages of one block, 3.236 M MACs."""
    sizes = ResNetSizes(ResNetBasicLayer, (1, 1, 1), (8, 16, 32), stem=8)
    return _with_cifar_stem(ResNetForImageClassification(sizes, 10))


def resnet18_backbone() -> ResNetBackbone:
    """ResNet-18 without its classifier: maps of 64, 128, 256 and 512 channels at a 4th to a 32nd of the size."""
    return ResNetBackbone(_basic_sizes((2, 2, 2, 2)))


@dataclass(frozen=True, slots=True)
class ResNetSizes:
    """Sizes of a ResNet.

    Attributes:
        block: class of its blocks.
        depths: blocks of each stage.
        widths: channels of each stage.
        stem: channels that enter the first stage.
    """

    block: type[ResNetBasicLayer] | type[ResNetBottleNeckLayer]
    depths: Sequence[int]
    widths: Sequence[int]
    stem: int


def _basic(depths: Sequence[int], classes: int) -> ResNetForImageClassification:
    return ResNetForImageClassification(_basic_sizes(depths), classes)


def _basic_sizes(depths: Sequence[int]) -> ResNetSizes:
    return ResNetSizes(ResNetBasicLayer, depths, (64, 128, 256, 512), stem=64)


def _bottlenecks(classes: int) -> ResNetForImageClassification:
    sizes = ResNetSizes(ResNetBottleNeckLayer, (3, 4, 6, 3), (256, 512, 1024, 2048), stem=64)
    return ResNetForImageClassification(sizes, classes)


def _with_cifar_stem(model: ResNetForImageClassification) -> nn.Module:
    """Keep all 32×32 positions: a 7×7 stride-2 stem and pooling would leave 8×8 to the first stage."""
    embedder = model.resnet.embedder
    stem = nn.Conv2d(3, embedder.embedder.convolution.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    embedder.embedder.convolution = stem
    embedder.pooler = nn.Identity()
    return model


class ResNetConvLayer(nn.Module):
    """Convolution that keeps the size at stride 1, batch norm and, unless it ends a branch, ReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: its side.
        stride: in both directions.
        active: with ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, active: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.activation: nn.Module = nn.ReLU() if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, height / stride, width / stride)."""
        found: Tensor = self.activation(self.normalization(self.convolution(x)))
        return found


class ResNetShortCut(nn.Module):
    """1×1 convolution and batch norm beside a branch that changes the shape.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The input in the shape of the branch."""
        found: Tensor = self.normalization(self.convolution(x))
        return found


class ResidualBlock(nn.Module):
    """A branch, `layer`, added to its input or to the input's `shortcut`, then ReLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
        branch: its layers, made after the shortcut, for weights are drawn in that order.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, branch: Iterator[nn.Module]) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else ResNetShortCut(inputs, outputs, stride)
        self.layer = nn.Sequential(*branch)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of branch and shortcut."""
        total: Tensor = self.layer(x)
        total += self.shortcut(x)
        found: Tensor = self.activation(total)
        return found


class ResNetBasicLayer(ResidualBlock):
    """Two 3×3 convolutions, the first with the stride.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride, _basic_branch(inputs, outputs, stride))


class ResNetBottleNeckLayer(ResidualBlock):
    """A 3×3 convolution with the stride, of a quarter of the width, between two 1×1 ones.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, stride, _bottleneck_branch(inputs, outputs, stride))


def _basic_branch(inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
    yield ResNetConvLayer(inputs, outputs, 3, stride)
    yield ResNetConvLayer(outputs, outputs, 3, active=False)


def _bottleneck_branch(inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
    narrow = outputs // 4
    yield ResNetConvLayer(inputs, narrow, 1)
    yield ResNetConvLayer(narrow, narrow, 3, stride)
    yield ResNetConvLayer(narrow, outputs, 1, active=False)


class ResNetStage(nn.Module):
    """Blocks of one width, in their order."""

    def __init__(self, blocks: Iterable[ResidualBlock]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """All blocks in their order."""
        found: Tensor = self.layers(x)
        return found


class ResNetEncoder(nn.Module):
    """Stages, each after the first at half the size of the one before."""

    def __init__(self, sizes: ResNetSizes) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        inputs, stride = sizes.stem, 1
        for width, depth in zip(sizes.widths, sizes.depths, strict=True):
            first = sizes.block(inputs, width, stride)
            self.stages.append(ResNetStage([first, *(sizes.block(width, width) for _ in range(depth - 1))]))
            inputs, stride = width, 2

    def forward(self, x: Tensor) -> Tensor:
        """All stages in their order."""
        for stage in self.stages:
            x = stage(x)
        return x


class ResNetEmbeddings(nn.Module):
    """The stem: a 7×7 convolution of stride 2, then max pooling of stride 2."""

    def __init__(self, stem: int) -> None:
        super().__init__()
        self.embedder = ResNetConvLayer(3, stem, 7, 2)
        self.pooler: nn.Module = nn.MaxPool2d(3, 2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, stem, height / 4, width / 4)."""
        found: Tensor = self.pooler(self.embedder(images))
        return found


class ResNetBackbone(nn.Module):
    """Stem and stages for detection and segmentation; its weights have the names of a classifier's `resnet`."""

    def __init__(self, sizes: ResNetSizes) -> None:
        super().__init__()
        self.embedder = ResNetEmbeddings(sizes.stem)
        self.encoder = ResNetEncoder(sizes)
        self.apply(_draw_)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps that the stages give, (batch, width, height / stride, width / stride) each."""
        x, maps = self.embedder(images), []
        for stage in self.encoder.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


class ResNetModel(nn.Module):
    """Stem, stages and average over positions."""

    def __init__(self, sizes: ResNetSizes) -> None:
        super().__init__()
        self.embedder = ResNetEmbeddings(sizes.stem)
        self.encoder = ResNetEncoder(sizes)
        self.pooler = nn.AdaptiveAvgPool2d(1)
        self.apply(_draw_)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, widths[-1], 1, 1)."""
        found: Tensor = self.pooler(self.encoder(self.embedder(images)))
        return found


class ResNetForImageClassification(nn.Module):
    """A ResNet with its classifier."""

    def __init__(self, sizes: ResNetSizes, classes: int) -> None:
        super().__init__()
        self.resnet = ResNetModel(sizes)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(sizes.widths[-1], classes))
        self.classifier.apply(_draw_)

    def forward(self, pixel_values: Tensor) -> Prediction:
        """Logits of images, (batch, 3, height, width)."""
        return Prediction(self.classifier(self.resnet(pixel_values)))


def _draw_(module: nn.Module) -> None:
    """He et al. 2015, arXiv 1502.01852, for convolutions; PyTorch's own for the classifier."""
    draw_normal_(module)
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        module.reset_parameters()


def resnet20_cifar() -> nn.Module:
    """ResNet-20 of width 16 for 10 classes at 32×32: three stages of three blocks, 40.8 M MACs."""
    sizes = ResNetSizes(ResNetBasicLayer, (3, 3, 3), (16, 32, 64), stem=16)
    return _with_cifar_stem(ResNetForImageClassification(sizes, 10))
