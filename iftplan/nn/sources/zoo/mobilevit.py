"""MobileViT-S (Mehta and Rastegari 2021, arXiv 2110.02178): MobileNetV2 blocks, and transformers over patches of 2×2.

The Sparse-IFT paper (arXiv 2303.11525, appendix B.2) trains it on CIFAR-100 and does not say in which form. Assumption:
patches stay 2×2 and the first two strides of 2 are 1, as in MobileNetV2 and ResNet for CIFAR. So the transformers see
16×16, 8×8 and 4×4 positions. Otherwise one pixel would be left to the last of them, which patches of 2×2 do not fit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, softmax

from iftplan.nn.sources.zoo.activations import SiLUActivation
from iftplan.nn.sources.zoo.initial_weights import STD, draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction

CHANNELS = (16, 32, 64, 96, 128, 160)
"""After the stem and after each stage."""
FEATURES = 640
WIDTHS = (144, 192, 240)
"""Channels of a token in the three stages with transformers."""
DEPTHS = (2, 4, 3)
HEADS = 4
EXPANSION = 4
PATCH = 2
DROPOUT = 0.1


def mobilevit_s() -> nn.Module:
    """MobileViT-S for 1000 classes at 256×256."""
    return MobileViTForImageClassification(1000)


def mobilevit_s_cifar() -> nn.Module:
    """MobileViT-S for 100 classes at 32×32: stem and second stage have stride 1."""
    model = MobileViTForImageClassification(100)
    inside = model.mobilevit
    for layer in (inside.conv_stem, inside.encoder.layer[1].get_submodule("layer.0.conv_3x3")):
        convolution = layer.get_submodule("convolution")
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (1, 1)
    return model


class MobileViTConvLayer(nn.Module):
    """Convolution that keeps the size at stride 1, with batch norm and SiLU unless they are left out.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: its side.
        stride: in both directions.
        depthwise: one filter for each channel.
        normal: with batch norm.
        active: with SiLU.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        normal: bool = True,
        active: bool = True,
    ) -> None:
        super().__init__()
        groups = inputs if depthwise else 1
        self.convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.normalization = nn.BatchNorm2d(outputs) if normal else None
        self.activation = SiLUActivation() if active else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉)."""
        x = self.convolution(x)
        x = x if self.normalization is None else self.normalization(x)
        return x if self.activation is None else self.activation(x)


class MobileViTInvertedResidual(nn.Module):
    """MobileNetV2's block (arXiv 1801.04381), added to its input where the shape stays.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = EXPANSION * inputs
        self.residual = stride == 1 and inputs == outputs
        self.expand_1x1 = MobileViTConvLayer(inputs, hidden)
        self.conv_3x3 = MobileViTConvLayer(hidden, hidden, 3, stride, depthwise=True)
        self.reduce_1x1 = MobileViTConvLayer(hidden, outputs, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, ⌈height / stride⌉, ⌈width / stride⌉)."""
        found: Tensor = self.reduce_1x1(self.conv_3x3(self.expand_1x1(x)))
        return x + found if self.residual else found


class MobileViTMobileNetLayer(nn.Module):
    """A stage of MobileNetV2 blocks; the first carries the stride.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: in both directions.
        blocks: how many.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, blocks: int) -> None:
        super().__init__()
        rest = (MobileViTInvertedResidual(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.ModuleList([MobileViTInvertedResidual(inputs, outputs, stride), *rest])

    def forward(self, x: Tensor) -> Tensor:
        """All blocks in their order."""
        for block in self.layer:
            x = block(x)
        return x


class MobileViTSelfAttention(nn.Module):
    """Every token attends to every token; the size of a head and all heads' channels follow the layers when they widen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_head_size = width // HEADS
        self.all_head_size = width
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        query, key, value = (
            project(x).view(*x.shape[:-1], -1, self.attention_head_size).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.attention_head_size)
        mixed: Tensor = self.dropout(softmax(scores, dim=-1)) @ value
        return mixed.transpose(1, 2).reshape(*x.shape[:-1], self.all_head_size)


class MobileViTSelfOutput(nn.Module):
    """End of the attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → the same."""
        found: Tensor = self.dropout(self.dense(x))
        return found


class MobileViTAttention(nn.Module):
    """Attention and its end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = MobileViTSelfAttention(width)
        self.output = MobileViTSelfOutput(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        found: Tensor = self.output(self.attention(x))
        return found


class MobileViTIntermediate(nn.Module):
    """A linear layer, twice as wide, and SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 2 * width)
        self.intermediate_act_fn = SiLUActivation()

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → (…, 2·channels)."""
        found: Tensor = self.intermediate_act_fn(self.dense(x))
        return found


class MobileViTOutput(nn.Module):
    """A linear layer back, added to the input of its branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(…, 2·channels) and (…, channels) → (…, channels)."""
        mixed: Tensor = self.dropout(self.dense(x))
        return mixed + residual


class MobileViTTransformerLayer(nn.Module):
    """Attention and feed-forward layers, each normalised before and added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = MobileViTAttention(width)
        self.intermediate = MobileViTIntermediate(width)
        self.output = MobileViTOutput(width)
        self.layernorm_before = nn.LayerNorm(width)
        self.layernorm_after = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        x = self.attention(self.layernorm_before(x)) + x
        found: Tensor = self.output(self.intermediate(self.layernorm_after(x)), x)
        return found


class MobileViTTransformer(nn.Module):
    """The transformer blocks of a stage."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(MobileViTTransformerLayer(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        for layer in self.layer:
            x = layer(x)
        return x


class MobileViTLayer(nn.Module):
    """A stage with a transformer: pixels at one place of their 2×2 patches attend to each other (figure 1b of the paper).

    Args:
        inputs: channels in.
        outputs: channels out, at half the size.
        width: channels of a token.
        layers: transformer blocks.
    """

    def __init__(self, inputs: int, outputs: int, width: int, layers: int) -> None:
        super().__init__()
        self.downsampling_layer = MobileViTInvertedResidual(inputs, outputs, 2)
        self.conv_kxk = MobileViTConvLayer(outputs, outputs, 3)
        self.conv_1x1 = MobileViTConvLayer(outputs, width, normal=False, active=False)
        self.transformer = MobileViTTransformer(width, layers)
        self.layernorm = nn.LayerNorm(width)
        self.conv_projection = MobileViTConvLayer(width, outputs)
        self.fusion = MobileViTConvLayer(2 * outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, height, width) → (batch, outputs, ⌈height / 2⌉, ⌈width / 2⌉)."""
        x = self.downsampling_layer(x)
        local = self.conv_1x1(self.conv_kxk(x))
        size = local.shape[-2:]
        whole = tuple(PATCH * -(-side // PATCH) for side in size)
        if whole != tuple(size):
            local = interpolate(local, whole, mode="bilinear", align_corners=False)
        tokens = self.layernorm(self.transformer(_unfold(local)))
        mixed = _fold(tokens, len(x), *whole)
        if whole != tuple(size):
            mixed = interpolate(mixed, tuple(size), mode="bilinear", align_corners=False)
        found: Tensor = self.fusion(torch.cat((x, self.conv_projection(mixed)), 1))
        return found


def _unfold(x: Tensor) -> Tensor:
    """(batch, channels, height, width) → (batch · places of a patch, patches, channels)."""
    batch, channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    x = x.reshape(batch * channels * rows, PATCH, columns, PATCH).transpose(1, 2)
    x = x.reshape(batch, channels, rows * columns, PATCH * PATCH).transpose(1, 3)
    return x.reshape(batch * PATCH * PATCH, rows * columns, -1)


def _fold(tokens: Tensor, batch: int, height: int, width: int) -> Tensor:
    """The inverse of `_unfold`."""
    rows, columns, channels = height // PATCH, width // PATCH, tokens.shape[-1]
    x = tokens.reshape(batch, PATCH * PATCH, rows * columns, channels).transpose(1, 3)
    x = x.reshape(batch * channels * rows, columns, PATCH, PATCH).transpose(1, 2)
    return x.reshape(batch, channels, height, width)


class MobileViTEncoder(nn.Module):
    """Two stages of MobileNetV2 blocks, three with transformers."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, *later = CHANNELS
        self.layer = nn.ModuleList(
            [MobileViTMobileNetLayer(first, second, 1, 1), MobileViTMobileNetLayer(second, third, 2, 3)]
        )
        for inputs, outputs, width, layers in zip((third, *later), later, WIDTHS, DEPTHS, strict=False):
            self.layer.append(MobileViTLayer(inputs, outputs, width, layers))

    def forward(self, x: Tensor) -> Tensor:
        """All stages in their order."""
        for stage in self.layer:
            x = stage(x)
        return x


class MobileViTModel(nn.Module):
    """Stem, stages, 1×1 convolution and average over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = MobileViTConvLayer(3, CHANNELS[0], 3, 2)
        self.encoder = MobileViTEncoder()
        self.conv_1x1_exp = MobileViTConvLayer(CHANNELS[-1], FEATURES)
        self.apply(_draw_)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, features)."""
        found: Tensor = self.conv_1x1_exp(self.encoder(self.conv_stem(images)))
        return found.mean((-2, -1))


class MobileViTForImageClassification(nn.Module):
    """MobileViT with its classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.mobilevit = MobileViTModel()
        self.dropout = nn.Dropout(DROPOUT, inplace=True)
        self.classifier = nn.Linear(FEATURES, classes)
        self.classifier.apply(_draw_)

    def forward(self, pixel_values: Tensor) -> Prediction:
        """Logits of images, (batch, 3, height, width)."""
        return Prediction(self.classifier(self.dropout(self.mobilevit(pixel_values))))


def _draw_(module: nn.Module) -> None:
    """Scales of batch norms too, which transformers' MobileViT draws around zero."""
    draw_normal_(module)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, std=STD)
