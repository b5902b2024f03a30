"""One-shot pruning by a plan, and the score of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iftplan.base.errors import InputError, one_line
from iftplan.nn.application.apply import apply
from iftplan.nn.application.pruning.prune import PruningMethod, prune_
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.data.samples import Task, generator_of
from iftplan.nn.training.measures.evaluation import Score, evaluate
from iftplan.nn.training.measures.pruning.trained import Trained
from iftplan.nn.training.parallel.engine import engine_for
from iftplan.plans.plan import Plan, Scope
from iftplan.runs.results.pruning import PrunedPoint
from iftplan.runs.settings import DataConfig, TrainingConfig

_BATCH = 64
"""Samples of a batch of calibration."""
_EVALUATED = 500
"""Samples of a batch of evaluation."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Data and engine on which networks are calibrated and scored.

    Attributes:
        task: data; networks are scored on its validation part, or else on the test part.
        batches: inputs of training samples, as they are, for calibration.
    """

    task: Task
    batches: Sequence[Tensor]

    @classmethod
    def of(cls, data: DataConfig, samples: int, seed: int, say: Callable[[str], None]) -> Judge:
        """Data opened, and training samples drawn from them.

        Args:
            data: settings of the data.
            samples: of calibration; fewer where there are fewer.
            seed: of the draw.
            say: hears what takes a while.

        Raises:
            InputError: the data cannot be read.
        """
        task = open_data(data, say)
        order = torch.randperm(len(task.train), generator=generator_of("calibration", seed))[:samples]
        parts = torch.split(order, _BATCH)
        return cls(task, [task.normalised(task.train.batch(part, None)[0]) for part in parts])

    @property
    def samples(self) -> int:
        """Number of samples of the calibration."""
        return sum(map(len, self.batches))

    def score(self, network: nn.Module) -> Score:
        """Loss and accuracy of a network in single precision.

        Raises:
            InputError: the data do not fit the network.
        """
        fabric = engine_for(TrainingConfig(precision="32-true"))
        held = self.task.validation or self.task.test
        try:
            return evaluate(fabric, network.to(fabric.device), self.task, held, _EVALUATED, (0, 1))
        except (RuntimeError, ValueError, IndexError) as error:
            told = one_line(error)
            raise InputError(
                f"the network cannot be run on samples of {self.task.name} ({told}); use data that fit its input and its classes."
            ) from error
        finally:
            network.cpu()


def pruned(plan: Plan, trained: Trained, method: PruningMethod, judge: Judge | None) -> nn.Module:
    """A pruned copy of a trained network, with the masks of a plan of plain sparsity.

    Args:
        plan: says how many weights of each layer stay, and in which structure.
        trained: the dense network.
        method: says which.
        judge: holds the calibration data; None where the method needs none.

    Raises:
        StaleError: the plan is of another network.
        InputError: the method needs data.
    """
    network = apply(plan, trained.network, init=None, dense_start=True)
    return prune_(network, method, judge.batches if judge is not None else ())


def point_of(plan: Plan, network: nn.Module, method: PruningMethod, judge: Judge | None) -> PrunedPoint:
    """Point of a pruned network: weights, cost and scores.

    Args:
        plan: that it was pruned by.
        network: pruned.
        method: that it was pruned by.
        judge: scores it; None for no score.
    """
    masks = [weight.mask for weight in masked_weights(network)]
    score = judge.score(network) if judge is not None else None
    return PrunedPoint(
        method,
        sum(int(mask.count_nonzero()) for mask in masks),
        sum(mask.numel() for mask in masks),
        plan.macs(Scope.MODEL),
        None if score is None or judge is None else score.metric(judge.task.metric),
        None if score is None else score.loss,
    )


def pruned_networks(
    plans: Sequence[Plan], methods: Sequence[PruningMethod], trained: Trained, judge: Judge | None
) -> Iterator[tuple[nn.Module, PrunedPoint]]:
    """Network pruned by each method to each plan, one after the other, with what it keeps, costs and scores.

    Args:
        plans: of plain sparsity, one for each network of a method.
        methods: to prune by.
        trained: the dense network.
        judge: calibration data and scores; None for methods without data, and no scores.
    """
    for method in methods:
        for plan in plans:
            network = pruned(plan, trained, method, judge)
            yield network, point_of(plan, network, method, judge)
