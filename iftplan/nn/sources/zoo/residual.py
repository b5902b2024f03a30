"""Residual networks, from transformers' ResNet; the CIFAR stem is the only thing written out.

He et al. 2015 (arXiv 1512.03385). The CIFAR form (3×3 stride-1 stem, no max pooling, 100 classes) is the
one of the Sparse-IFT paper (arXiv 2303.11525).
"""

from __future__ import annotations

from torch import nn

BASIC_WIDTHS = (64, 128, 256, 512)
BOTTLENECK_WIDTHS = (256, 512, 1024, 2048)


def resnet18() -> nn.Module:
    """ResNet-18 for 1000 classes at 224×224."""
    return _basic((2, 2, 2, 2), classes=1000)


def resnet34() -> nn.Module:
    """ResNet-34 for 1000 classes at 224×224."""
    return _basic((3, 4, 6, 3), classes=1000)


def resnet50() -> nn.Module:
    """ResNet-50 v1.5: the 3×3 convolution of a bottleneck carries the stride."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        layer_type="bottleneck",
        depths=[3, 4, 6, 3],
        hidden_sizes=list(BOTTLENECK_WIDTHS),
        embedding_size=64,
        downsample_in_bottleneck=False,
        num_labels=1000,
    )
    model: nn.Module = ResNetForImageClassification(config)
    return model


def resnet18_cifar() -> nn.Module:
    """ResNet-18 for 100 classes at 32×32."""
    return _with_cifar_stem(_basic((2, 2, 2, 2), classes=100))


def resnet34_cifar() -> nn.Module:
    """ResNet-34 for 100 classes at 32×32."""
    return _with_cifar_stem(_basic((3, 4, 6, 3), classes=100))


def resnet8_cifar() -> nn.Module:
    """ResNet-8 of width 8 for 10 classes at 32×32: three stages of one block, 3.236 M MACs."""
    return _with_cifar_stem(_basic((1, 1, 1), classes=10, widths=(8, 16, 32)))


def _basic(depths: tuple[int, ...], *, classes: int, widths: tuple[int, ...] = BASIC_WIDTHS) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        layer_type="basic",
        depths=list(depths),
        hidden_sizes=list(widths),
        embedding_size=widths[0],
        num_labels=classes,
    )
    model: nn.Module = ResNetForImageClassification(config)
    return model


def _with_cifar_stem(model: nn.Module) -> nn.Module:
    """Keep all 32×32 positions: a 7×7 stride-2 stem and pooling would leave 8×8 to the first stage."""
    embedder = model.get_submodule("resnet.embedder")
    large = embedder.get_submodule("embedder.convolution")
    assert isinstance(large, nn.Conv2d)
    stem = nn.Conv2d(3, large.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    embedder.get_submodule("embedder").convolution = stem
    embedder.pooler = nn.Identity()
    return model
