"""ResNets (He et al. 2015, arXiv 1512.03385) for ImageNet and, with another stem, for CIFAR.

Shortcuts that change the width are 1×1 convolutions (option B of section 3.3). A bottleneck's stride is in its 3×3
convolution, which is known as v1.5. The CIFAR form (3×3 stride-1 stem, no max pooling, 100 classes) is the one of the
Sparse-IFT paper (arXiv 2303.11525).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from iftplan.nn.sources.zoo.initial_weights import draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction

BASIC_WIDTHS = (64, 128, 256, 512)
BOTTLENECK_WIDTHS = (256, 512, 1024, 2048)
STEM_WIDTH = 64


def resnet18() -> nn.Module:
    """ResNet-18 for 1000 classes at 224×224."""
    return ResNetForImageClassification(ResNetBasicLayer, (2, 2, 2, 2), BASIC_WIDTHS, 1000)


def resnet34() -> nn.Module:
    """ResNet-34 for 1000 classes at 224×224."""
    return ResNetForImageClassification(ResNetBasicLayer, (3, 4, 6, 3), BASIC_WIDTHS, 1000)


def resnet50() -> nn.Module:
    """ResNet-50 v1.5 for 1000 classes at 224×224: the 3×3 convolution of a bottleneck carries the stride."""
    return ResNetForImageClassification(ResNetBottleNeckLayer, (3, 4, 6, 3), BOTTLENECK_WIDTHS, 1000)


def resnet18_cifar() -> nn.Module:
    """ResNet-18 for 100 classes at 32×32."""
    model = ResNetForImageClassification(ResNetBasicLayer, (2, 2, 2, 2), BASIC_WIDTHS, 100)
    return _with_cifar_stem(model)


def resnet34_cifar() -> nn.Module:
    """ResNet-34 for 100 classes at 32×32."""
    model = ResNetForImageClassification(ResNetBasicLayer, (3, 4, 6, 3), BASIC_WIDTHS, 100)
    return _with_cifar_stem(model)


def resnet8_cifar() -> nn.Module:
    """ResNet-8 of width 8 for 10 classes at 32×32: three stages of one block, 3.236 M MACs."""
    model = ResNetForImageClassification(ResNetBasicLayer, (1, 1, 1), (8, 16, 32), 10, stem=8)
    return _with_cifar_stem(model)


def _with_cifar_stem(model: ResNetForImageClassification) -> nn.Module:
    """Keep all 32×32 positions: a 7×7 stride-2 stem and pooling would leave 8×8 to the first stage."""
    embedder = model.resnet.embedder
    stem = nn.Conv2d(3, embedder.embedder.convolution.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    embedder.embedder.convolution = stem
    embedder.pooler = nn.Identity()
    return model


class ResNetConvLayer(nn.Module):
    """Convolution that keeps the size at stride 1, batch norm and, unless it ends a branch, ReLU."""

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
    """1×1 convolution and batch norm beside a branch that changes the shape."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the branch."""
        found: Tensor = self.normalization(self.convolution(x))
        return found


class _Residual(nn.Module):
    """A branch, `layer`, added to its input or to the input's `shortcut`, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if same else ResNetShortCut(inputs, outputs, stride)
        self.layer = nn.Sequential(*self.branch(inputs, outputs, stride))
        self.activation = nn.ReLU()

    def branch(self, inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
        """The layers of the branch."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """ReLU of branch and shortcut."""
        total: Tensor = self.layer(x)
        total += self.shortcut(x)
        found: Tensor = self.activation(total)
        return found


class ResNetBasicLayer(_Residual):
    """Two 3×3 convolutions."""

    def branch(self, inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
        """The first convolution carries the stride."""
        yield ResNetConvLayer(inputs, outputs, 3, stride)
        yield ResNetConvLayer(outputs, outputs, 3, active=False)


class ResNetBottleNeckLayer(_Residual):
    """A 3×3 convolution of a quarter of the width between two 1×1 ones."""

    def branch(self, inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
        """The middle convolution carries the stride."""
        narrow = outputs // 4
        yield ResNetConvLayer(inputs, narrow, 1)
        yield ResNetConvLayer(narrow, narrow, 3, stride)
        yield ResNetConvLayer(narrow, outputs, 1, active=False)


class ResNetStage(nn.Module):
    """Blocks of one width; the first carries the stride."""

    def __init__(self, block: type[_Residual], inputs: int, outputs: int, depth: int, stride: int) -> None:
        super().__init__()
        rest = (block(outputs, outputs) for _ in range(depth - 1))
        self.layers = nn.Sequential(block(inputs, outputs, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """All blocks in their order."""
        found: Tensor = self.layers(x)
        return found


class ResNetEncoder(nn.Module):
    """Stages, each after the first at half the size of the one before."""

    def __init__(
        self, block: type[_Residual], depths: Sequence[int], widths: Sequence[int], stem: int
    ) -> None:
        super().__init__()
        strides = (1, *[2] * len(depths))
        self.stages = nn.ModuleList(
            ResNetStage(block, *sizes)
            for sizes in zip((stem, *widths), widths, depths, strides, strict=False)
        )

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


class ResNetModel(nn.Module):
    """Stem, stages and average over positions."""

    def __init__(
        self, block: type[_Residual], depths: Sequence[int], widths: Sequence[int], stem: int
    ) -> None:
        super().__init__()
        self.embedder = ResNetEmbeddings(stem)
        self.encoder = ResNetEncoder(block, depths, widths, stem)
        self.pooler = nn.AdaptiveAvgPool2d(1)
        self.apply(_draw_)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, widths[-1], 1, 1)."""
        found: Tensor = self.pooler(self.encoder(self.embedder(images)))
        return found


class ResNetForImageClassification(nn.Module):
    """A ResNet with its classifier.

    Args:
        block: of which its stages are made.
        depths: blocks of each stage.
        widths: channels of each stage.
        classes: that it tells apart.
        stem: channels that enter the first stage.
    """

    def __init__(
        self,
        block: type[_Residual],
        depths: Sequence[int],
        widths: Sequence[int],
        classes: int,
        stem: int = STEM_WIDTH,
    ) -> None:
        super().__init__()
        self.resnet = ResNetModel(block, depths, widths, stem)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(widths[-1], classes))
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
