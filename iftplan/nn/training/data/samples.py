"""Samples of a run, and batches that depend only on the seed, the epoch and their number."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import torch
from torch import Generator, Tensor

from iftplan.nn.training.data.data_files import DataFiles

Batch = tuple[Tensor, Tensor]
"""Inputs and targets."""


class Samples(Protocol):
    """A part of a data set: training or test."""

    def __len__(self) -> int:
        """Number of samples."""

    def draws(self, count: int, generator: Generator) -> Tensor:
        """The random numbers that so many samples need; their first dimension is the samples."""

    def batch(self, indices: Tensor, draws: Tensor | None) -> Batch:
        """Inputs and targets; without draws as they are, for evaluation. Inputs may be bytes still to be normalised."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A data set with its metric and its preparation.

    Attributes:
        train: training samples.
        test: samples for evaluation.
        metric: "accuracy" or "perplexity".
        classes: number of classes, or of tokens.
        name: for people.
        files: that the data are in; None where they come with a library.
        scale: mean and deviation (C,) by which inputs that are bytes are normalised.
        mixup: α of the weights by which training samples are mixed in pairs; 0 for none.
        workers: processes that make batches ahead of time; 0 where samples are in memory.
        validation: samples by which the best evaluation is chosen; None for none.
        consecutive: whether samples are windows of one text, which move in training.
    """

    train: Samples
    test: Samples
    metric: str
    classes: int
    name: str
    files: DataFiles | None = None
    scale: tuple[Tensor, Tensor] | None = None
    mixup: float = 0.0
    workers: int = 0
    validation: Samples | None = None
    consecutive: bool = False

    def normalised(self, inputs: Tensor) -> Tensor:
        """Inputs as the model takes them: bytes of images (n, C, H, W) become floats on their device."""
        if inputs.dtype != torch.uint8 or self.scale is None:
            return inputs
        mean, std = (value.to(inputs.device).view(-1, 1, 1) for value in self.scale)
        return inputs.float().div_(255).sub_(mean).div_(std)


def generator_of(*numbers: int | str) -> Generator:
    """Random numbers of a place in training, such as (seed, epoch, batch): nothing to save for a resume."""
    digest = sha256(":".join(map(str, numbers)).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def order_of(samples: Samples, seed: int, epoch: int) -> Tensor:
    """Order of an epoch: the samples' numbers, shuffled.

    Args:
        samples: the part of a data set.
        seed: of the run.
        epoch: counted from 0.
    """
    return torch.randperm(len(samples), generator=generator_of("order", seed, epoch))


def train_batch(
    samples: Samples, order: Tensor, size: int, place: tuple[int, int, int], rank: int, world: int
) -> Batch:
    """Share of one process in a training batch; together they are the same for every number of processes.

    Args:
        samples: to take from.
        order: of the epoch.
        size: samples of the batch, over all processes.
        place: seed, epoch and the batch's number in the epoch.
        rank: this process.
        world: number of processes.
    """
    seed, epoch, number = place
    indices = order[number * size : (number + 1) * size]
    draws = samples.draws(len(indices), generator_of("draws", seed, epoch, number))
    return samples.batch(indices[rank::world], draws[rank::world])
