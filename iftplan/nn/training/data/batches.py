"""Batches one after another, made here or ahead of time by processes of their own.

A batch follows from its number alone. Any number of processes makes the same batches, a resumed run begins at a later
number, and no loader has a state to save.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from iftplan.base.errors import InputError
from iftplan.nn.training.data.samples import Batch, Samples, order_of, train_batch
from iftplan.nn.training.data.tokens import IGNORED

_AHEAD = 2
"""Batches that each process makes ahead."""
_MOST = 8


@dataclass(slots=True, eq=False)
class TrainingBatches:
    """Training batch of each step, or one process's share of it.

    Attributes:
        samples: to take from.
        seed: of the run.
        size: samples of a batch, over all processes.
        per_epoch: steps of an epoch.
        rank: this process of the run.
        world: number of processes.
        order: epoch, and its samples in order.
    """

    samples: Samples
    seed: int
    size: int
    per_epoch: int
    rank: int
    world: int
    order: tuple[int, Tensor] | None = None

    def __call__(self, step: int) -> Batch:
        """Inputs and targets of a step, counted from 0."""
        epoch, number = divmod(step, self.per_epoch)
        if self.order is None or self.order[0] != epoch:
            self.order = epoch, order_of(self.samples, self.seed, epoch)
        place = self.seed, epoch, number
        return train_batch(self.samples, self.order[1], self.size, place, self.rank, self.world)


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationBatches:
    """All samples in order, as they are, or every `world`-th of them.

    Every process has the same number of batches: where weights or statistics are shared, each forward pass is one of all
    processes. One that has no samples left for a batch gets a sample whose targets are ignored.

    Attributes:
        samples: to take.
        size: samples of a batch.
        rank: this process of the run.
        world: number of processes.
    """

    samples: Samples
    size: int
    rank: int
    world: int

    def __len__(self) -> int:
        return -(-len(self.samples) // (self.size * self.world))

    def __call__(self, number: int) -> Batch:
        """Inputs and targets of a batch, counted from 0."""
        first = self.rank + number * self.size * self.world
        end = min(len(self.samples), first + self.size * self.world)
        if first < end:
            return self.samples.batch(torch.arange(first, end, self.world), None)
        inputs, targets = self.samples.batch(torch.tensor([0]), None)
        return inputs, torch.full_like(targets, IGNORED)


def batches(
    make: Callable[[int], Batch], numbers: range, workers: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """Batches of these numbers, in their order.

    Args:
        make: makes one; it travels to other processes.
        numbers: of the batches.
        workers: processes that make them; 0 for this one.
        pinned: whether they are put into memory that an accelerator reads from directly.

    Raises:
        InputError: data cannot be read.
    """
    if not workers:
        yield from map(make, numbers)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # as many as were asked for
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork")  # workers start no threads
        loader: DataLoader[Batch | str] = DataLoader(
            _Numbered(make),
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            prefetch_factor=_AHEAD,
            pin_memory=pinned,
            generator=Generator(),  # of its own: the run's random numbers stay as they are
        )
        started = iter(loader)
    while (found := _next(started)) is not None:
        if isinstance(found, str):
            raise InputError(found)
        yield found


@contextmanager
def watching_workers() -> Iterator[None]:
    """Context in which a batch process that dies raises an error that says what to do.

    torch reports the death by a signal, so the error is raised wherever the run is at that moment.

    Raises:
        InputError: a process died.
    """
    death = None
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)", str(error))
        if found is None:
            raise
        how = re.search(r"killed by signal: (\w+)", str(error))
        death = f"process {found[1]}" + (f", signal: {how[1]}" if how else "")
    if death is not None:  # here the error and its traceback are gone, which would keep the loader alive
        raise InputError(_died(death))


def _next(started: Iterator[Batch | str]) -> Batch | str | None:
    """The next batch; None at the end."""
    try:
        return next(started, None)
    except (ConnectionError, EOFError):  # a batch was on its way from a process that is no more
        pass
    raise InputError(_died("in the middle of a batch"))


def _died(how: str) -> str:
    return (
        f"a process that reads data died ({how}). Usually memory ran out, or /dev/shm is full: resume with fewer "
        "data.workers, or start again with a smaller training.batch_size."
    )


def workers_for(asked: int | None) -> int:
    """Number of processes that make batches: as asked, or one for each core that this process may use."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class _Numbered(Dataset[Batch | str]):
    """Batches by number; an error in the data is returned, so that it is shown without a worker's traceback."""

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self._make = make

    def __getitem__(self, number: int) -> Batch | str:
        try:
            return self._make(number)
        except InputError as error:
            return str(error)
