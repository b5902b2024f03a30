"""Validation data: a part of the training data that is kept aside, the same for every seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from iftplan.base.errors import InputError
from iftplan.nn.training.data.samples import Samples, Task, generator_of


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Some of the samples of a data set.

    Attributes:
        whole: the data set.
        indices: of the samples in it, (n,).
    """

    whole: Samples
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def draws(self, count: int, generator: Generator) -> Tensor:
        """Random numbers that so many samples need."""
        return self.whole.draws(count, generator)

    def batch(self, indices: Tensor, draws: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs and targets of samples, numbered within the subset."""
        return self.whole.batch(self.indices[indices], draws)


def with_validation(task: Task, part: float) -> Task:
    """The task with a part of its training samples kept aside as validation samples.

    Labelled samples are chosen at random, by their number alone. Windows of a text are the last ones; the window before
    them is left out, because windows move by less than their length in training.

    Args:
        task: with training and test samples.
        part: of the training samples; 0 for none.

    Raises:
        InputError: one of the two parts would be empty.
    """
    if not part:
        return task
    count = len(task.train)
    kept = round(part * count)
    gap = 1 if task.consecutive else 0
    if not kept or count - kept - gap < 1:
        raise InputError(
            f"data.validation_fraction {part:g} of the {count} training samples of {task.name} leaves none to "
            f"{'train on' if kept else 'validate on'}; use {'a smaller' if kept else 'a larger'} fraction, or more data."
        )
    order = (
        torch.arange(count)
        if task.consecutive
        else torch.randperm(count, generator=generator_of("validation", count))
    )
    train, validation = order[: count - kept - gap], order[count - kept :]
    return replace(
        task,
        train=Subset(task.train, train.sort().values),
        validation=Subset(task.train, validation.sort().values),
    )
