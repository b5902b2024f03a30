"""Images in memory as bytes, normalised and augmented when a batch is taken."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Labelled images as `Samples`: normalised, and in training cropped and mirrored.

    Attributes:
        pixels: (N, C, H, W), bytes.
        labels: (N,), int64.
        mean: (C,), of the training images in [0, 1].
        std: (C,), likewise.
        crop: pixels of zero padding from which training images are cropped at random.
        flip: whether training images are mirrored at random.
        cutout: side of the square, at a random place, that is set to the mean in training (arXiv 1708.04552).
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def draws(self, count: int, generator: Generator) -> Tensor:
        """Row, column and mirror of each image, and the centre of its hole where it has one, in [0, 1)."""
        return torch.rand(count, 5 if self.cutout else 3, generator=generator)

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Normalised floats (n, C, H, W) and labels (n,)."""
        shape = (-1, 1, 1)
        images = self.pixels[indices].float().div_(255).sub_(self.mean.view(shape)).div_(self.std.view(shape))
        if draws is not None:
            images = self._cut(self._mirrored(self._cropped(images, draws), draws), draws)
        return images, self.labels[indices]

    def _cropped(self, images: Tensor, draws: Tensor) -> Tensor:
        if not self.crop:
            return images
        count, _, height, width = images.shape
        padded = pad(images, (self.crop,) * 4)
        top, left = ((draws[:, i] * (2 * self.crop + 1)).long().view(-1, 1, 1) for i in (0, 1))
        rows, columns = top + torch.arange(height).view(1, -1, 1), left + torch.arange(width)
        # indexed dimensions come first: (n, H, W, C)
        return padded[torch.arange(count).view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2).contiguous()

    def _mirrored(self, images: Tensor, draws: Tensor) -> Tensor:
        if not self.flip:
            return images
        return torch.where((draws[:, 2] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)

    def _cut(self, images: Tensor, draws: Tensor) -> Tensor:
        if not self.cutout:
            return images
        rows, columns = (
            self._inside((draws[:, 3 + i] * length).long().view(-1, 1), length)
            for i, length in enumerate(images.shape[2:])
        )
        hole = rows.view(len(images), 1, -1, 1) & columns.view(len(images), 1, 1, -1)
        return images.masked_fill(hole, 0)

    def _inside(self, centres: Tensor, length: int) -> Tensor:
        """Places of a row or column that a hole covers, (n, length)."""
        starts = centres - self.cutout // 2
        places = torch.arange(length)
        return (places >= starts) & (places < starts + self.cutout)


def image_pair(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    scale: tuple[Tensor | None, ...] = (None, None),
    *,
    crop: int,
    flip: bool,
    cutout: int = 0,
) -> tuple[Images, Images]:
    """Training and test images, both normalised alike.

    Args:
        train: pixels (N, C, H, W) of 8 bits, and labels (N,).
        test: likewise.
        scale: mean and deviation of each channel; None for those of the training images.
        crop: pixels by which training images move at most.
        flip: whether training images are mirrored at random.
        cutout: side of the square of training images that is set to the mean.
    """
    mean, std = scale
    if mean is None or std is None:
        pixels = train[0].float().div_(255)
        mean = pixels.mean((0, 2, 3)) if mean is None else mean
        std = pixels.std((0, 2, 3)).clamp_min_(1e-3) if std is None else std
    return Images(*train, mean, std, crop, flip, cutout), Images(*test, mean, std)
