"""What a run learns from: samples in memory, and batches that depend on nothing but the numbers they are asked with."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import torch
from torch import Generator, Tensor


class Samples(Protocol):
    """A part of a data set: training or test."""

    def __len__(self) -> int:
        """How many samples there are."""

    def draws(self, count: int, generator: Generator) -> Tensor:
        """The random numbers that so many samples need; their first dimension is the samples."""

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs and targets; without draws as they are, for evaluation."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A data set with what it asks for.

    Attributes:
        train: what is learnt from.
        test: what is evaluated.
        metric: "accuracy" or "perplexity".
        classes: how many classes, or tokens, there are.
        name: for people.
    """

    train: Samples
    test: Samples
    metric: str
    classes: int
    name: str


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
) -> tuple[Tensor, Tensor]:
    """Share of one process in a training batch; together they are the same for every number of processes.

    Args:
        samples: to take from.
        order: of the epoch.
        size: samples of the batch, over all processes.
        place: seed, epoch and the batch's number in the epoch.
        rank: this process.
        world: how many there are.
    """
    seed, epoch, number = place
    indices = order[number * size : (number + 1) * size]
    draws = samples.draws(len(indices), generator_of("draws", seed, epoch, number))
    return samples.batch(indices[rank::world], draws[rank::world])
