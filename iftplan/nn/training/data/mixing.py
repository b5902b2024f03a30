"""Images and labels mixed in pairs (mixup, arXiv 1710.09412, equation 1)."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from torch import Tensor
from torch.nn.functional import one_hot

from iftplan.nn.training.data.samples import Batch


def mixed(batch: Batch, classes: int, weight: float) -> Batch:
    """Images mixed with those half a batch further on, and their labels as probabilities (n, classes).

    At this distance, both images of a pair belong to one process, whatever the number of processes.

    Args:
        batch: floats (n, …) and class numbers (n,).
        classes: number of classes.
        weight: λ, of the images themselves.
    """
    inputs, labels = batch
    shift = len(labels) // 2
    targets = one_hot(labels, classes).to(inputs.dtype)
    return _between(inputs, shift, weight), _between(targets, shift, weight)


def mixing_weight(alpha: float, seed: int, step: int) -> float:
    """λ of a step, from the Beta distribution of both parameters α.

    Args:
        alpha: above 0.
        seed: of the run.
        step: counted from 0.
    """
    key = sha256(f"mixup:{seed}:{step}".encode()).digest()
    return Random(int.from_bytes(key[:8])).betavariate(alpha, alpha)


def _between(values: Tensor, shift: int, weight: float) -> Tensor:
    return values * weight + values.roll(shift, 0) * (1 - weight)
