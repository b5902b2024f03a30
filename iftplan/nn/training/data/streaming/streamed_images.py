"""Labelled images as `Samples` that know where images lie and hold no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from iftplan.nn.training.data.streaming.augmentation import DRAWS, Augmentation, decoded

Whole = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class PictureSource(Protocol):
    """Image files with labels, in an order that never changes."""

    @property
    def labels(self) -> Whole:
        """Class numbers, (N,)."""

    def name(self, index: int) -> str:
        """Name of an image, for people."""

    def read(self, index: int) -> bytes:
        """Content of an image's file."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamedImages:
    """Images that are read and decoded when a batch asks for them, as bytes that are not normalised yet.

    Attributes:
        source: files and labels.
        augmentation: crops and colours of each.
    """

    source: PictureSource
    augmentation: Augmentation

    def __len__(self) -> int:
        return len(self.source.labels)

    def draws(self, count: int, generator: Generator) -> Tensor:
        """Numbers in [0, 1) of each image, (count, DRAWS)."""
        return torch.rand(count, DRAWS, generator=generator)

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Bytes (n, 3, size, size) and labels (n,)."""
        size, least = self.augmentation.size, self.augmentation.least_side(training=draws is not None)
        found = np.empty((len(indices), 3, size, size), dtype=np.uint8)
        for row, index in enumerate(indices.tolist()):
            picture = decoded(self.source.read(index), partial(self.source.name, index), least)
            numbers = None if draws is None else draws[row].tolist()
            found[row] = self.augmentation.pixels(picture, numbers).transpose(2, 0, 1)
        return torch.from_numpy(found), torch.from_numpy(self.source.labels[indices.numpy()])
