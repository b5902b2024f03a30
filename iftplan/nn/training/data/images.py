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
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    crop: int = 0
    flip: bool = False

    def __len__(self) -> int:
        return len(self.pixels)

    def draws(self, count: int, generator: Generator) -> Tensor:
        """Row, column and mirror of each image, in [0, 1)."""
        return torch.rand(count, 3, generator=generator)

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Normalised floats (n, C, H, W) and labels (n,)."""
        shape = (-1, 1, 1)
        images = self.pixels[indices].float().div_(255).sub_(self.mean.view(shape)).div_(self.std.view(shape))
        if draws is not None:
            images = self._mirrored(self._cropped(images, draws), draws)
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


def image_pair(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, crop: int, flip: bool
) -> tuple[Images, Images]:
    """Training and test images, both normalised by the mean and deviation of the training images.

    Args:
        train: pixels (N, C, H, W) of 8 bits, and labels (N,).
        test: likewise.
        crop: pixels by which training images move at most.
        flip: whether training images are mirrored at random.
    """
    pixels = train[0].float().div_(255)
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp_min_(1e-3)
    return Images(*train, mean, std, crop, flip), Images(*test, mean, std)
