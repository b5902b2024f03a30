"""Evaluate a model: loss and accuracy, or loss and perplexity, over one part of the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from iftplan.base.errors import InputError
from iftplan.nn.training.data.batches import EvaluationBatches, batches
from iftplan.nn.training.data.samples import Batch, Samples, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True)
class Score:
    """Loss and accuracy of an evaluation.

    Attributes:
        loss: mean cross entropy in nats, of a sample or a token.
        accuracy: the part of the targets that had the largest logit.
    """

    loss: float
    accuracy: float

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that is beyond a float."""
        return exp(self.loss) if self.loss < 700 else float("inf")

    def metric(self, name: str) -> float:
        """The accuracy or the perplexity, whichever `name` says."""
        return self.accuracy if name == "accuracy" else self.perplexity


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returns: a tensor, something with `.logits`, or the first of several."""
    if isinstance(output, Tensor):
        return output
    found: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return found


def loss_of(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy in nats.

    Args:
        logits: (…, classes).
        targets: (…), class numbers, of which -100 is ignored; or (n, classes), probabilities.
        smoothing: of labels, in [0, 1).
    """
    flat = logits.reshape(-1, logits.shape[-1]).float()
    if targets.is_floating_point():  # a model may have more outputs than there are classes
        wanted = pad(targets, (0, flat.shape[-1] - targets.shape[-1]))
        return cross_entropy(flat, wanted, label_smoothing=smoothing)
    classes = targets.reshape(-1)
    if not (classes >= 0).any():  # nothing is asked of this part of a batch, whose mean would be no number
        return flat.sum() * 0.0
    return cross_entropy(flat, classes, label_smoothing=smoothing)


@torch.no_grad()
def evaluate(
    fabric: Fabric, model: nn.Module, task: Task, samples: Samples, size: int, share: tuple[int, int]
) -> Score:
    """The score over all samples, each process taking its share.

    Args:
        fabric: the engine; every process calls it.
        model: put into evaluation mode, and back at the end.
        task: says how samples become inputs.
        samples: of the part of the data that is evaluated.
        size: samples of a batch.
        share: number of this process among those that see samples of their own, and how many those are.

    Raises:
        InputError: no sample asks for an answer.
    """
    was_training = model.training
    model.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=fabric.device)
    for inputs, targets in _batches(fabric, task, EvaluationBatches(samples, size, *share)):
        with fabric.autocast():  # an average of the weights is not wrapped by the engine
            logits = logits_of(model(inputs)).float()
        flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        counted = (wanted >= 0).sum()
        totals[0] += cross_entropy(flat, wanted, reduction="sum").double()
        totals[1] += (flat.argmax(-1) == wanted).sum()
        totals[2] += counted
    model.train(was_training)
    loss, right, count = _summed(fabric, totals).tolist()
    if not count:
        raise InputError(
            f"none of the {len(samples)} samples that the network is evaluated on asks for an answer: no token is hidden, or no label known. "
            "Evaluate on more (data.test_fraction, data.validation_fraction)."
        )
    return Score(loss / count, right / count)


def _batches(fabric: Fabric, task: Task, make: EvaluationBatches) -> Iterator[Batch]:
    for inputs, targets in batches(make, range(len(make)), task.workers):
        yield task.normalised(fabric.to_device(inputs)), fabric.to_device(targets)


def _summed(fabric: Fabric, totals: Tensor) -> Tensor:
    summed = fabric.all_reduce(totals, reduce_op="sum")
    assert isinstance(summed, Tensor)
    return summed
