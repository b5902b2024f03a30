"""RetinaNet (Lin et al. 2017, arXiv 1708.02002) with ResNet-18 and a feature pyramid, 80 classes: the forward pass.

Sizes are those of MMDetection's `retinanet_r18_fpn`, with which the Sparse-IFT paper trains it on COCO (arXiv 2303.11525,
section 3.5): pyramids of 256 channels on the last three stages, the two coarser levels from the last stage itself, and
one head of four convolutions before each output that all five levels share. Anchors, losses and the choice of boxes are
left out: they have no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import interpolate

from iftplan.nn.sources.zoo.resnet import resnet18_backbone

CHANNELS = 256
STAGES = (128, 256, 512)
"""Channels of the stages that the pyramid stands on."""
COARSER = 2
"""Levels above the last stage, each at half the size of the one before."""
DEPTH = 4
ANCHORS = 9
CLASSES = 80


def retinanet_r18() -> nn.Module:
    """RetinaNet with ResNet-18 for 80 classes, made for images of 800×1280."""
    return RetinaNet()


class Detection(NamedTuple):
    """The answer of a detector, a map for each level of the pyramid, finest first.

    Attributes:
        logits: (batch, anchors · classes, height, width) each.
        boxes: (batch, anchors · 4, height, width) each.
    """

    logits: tuple[Tensor, ...]
    boxes: tuple[Tensor, ...]


class FeaturePyramid(nn.Module):
    """Maps of one width from stages of several: coarse ones are added to finer ones (arXiv 1612.03144).

    Args:
        inputs: channels of the stages, finest first.
        outputs: channels of every level.
        coarser: levels beyond the last stage, by 3×3 convolutions of stride 2.
    """

    def __init__(self, inputs: Sequence[int], outputs: int, coarser: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, outputs, 1) for channels in inputs)
        self.output = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in inputs)
        widths = (inputs[-1], *[outputs] * (coarser - 1))
        self.coarser = nn.ModuleList(nn.Conv2d(width, outputs, 3, 2, padding=1) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels of the pyramid, finest first."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + interpolate(levels[i], levels[i - 1].shape[2:])
        found = [output(x) for output, x in zip(self.output, levels, strict=True)]
        x = maps[-1]
        for convolution in self.coarser:
            x = convolution(x)
            found.append(x)
        return tuple(found)


class RetinaHead(nn.Module):
    """Class and box of every anchor: four convolutions and an output each, the same for all levels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classes = nn.Sequential(*_tower(channels), nn.Conv2d(channels, ANCHORS * CLASSES, 3, padding=1))
        self.boxes = nn.Sequential(*_tower(channels), nn.Conv2d(channels, ANCHORS * 4, 3, padding=1))

    def forward(self, levels: Sequence[Tensor]) -> Detection:
        """Logits and boxes of all levels."""
        return Detection(tuple(map(self.classes, levels)), tuple(map(self.boxes, levels)))


def _tower(channels: int) -> Iterator[nn.Module]:
    for _ in range(DEPTH):
        yield nn.Conv2d(channels, channels, 3, padding=1)
        yield nn.ReLU()


class RetinaNet(nn.Module):
    """Backbone, pyramid and head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet18_backbone()
        self.neck = FeaturePyramid(STAGES, CHANNELS, COARSER)
        self.head = RetinaHead(CHANNELS)

    def forward(self, pixel_values: Tensor) -> Detection:
        """Logits and boxes of images, (batch, 3, height, width)."""
        found: Detection = self.head(self.neck(self.backbone(pixel_values)[1:]))
        return found
