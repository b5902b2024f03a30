"""What is doubtful about a Masking in a run of a known length: `iftplan.runs.cautions` asked with what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from iftplan.nn.masking.algorithms.base import Algorithm, RunMethod
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masks.masked_weights import masked_weights, to_matrix
from iftplan.nn.masks.shards import whole
from iftplan.runs.cautions import weight_cautions


def cautions(masks: Masking, steps: int, scheduler: Any = None) -> list[str]:
    """Sentences about a run before it begins; none is an error.

    Args:
        masks: that will be used.
        steps: optimizer steps of the whole run.
        scheduler: of the learning rate; looked at where its future can be asked for (`LambdaLR`, and so all that
            transformers offers).
    """
    return [
        *algorithm_cautions(masks.algorithm, steps, _rate_of(scheduler)),
        *weight_cautions(*_weights(masks)),
    ]


def algorithm_cautions(
    algorithm: Algorithm, steps: int, rate: Callable[[int], float] | None = None
) -> list[str]:
    """Sentences about when masks change in a run of so many steps.

    Args:
        algorithm: how masks change.
        steps: optimizer steps of the whole run.
        rate: the learning rate by step, where it is known in advance.
    """
    return algorithm.cautions(steps, rate) if isinstance(algorithm, RunMethod) else []


def weights_left(masks: Masking) -> list[str]:
    """Sentences about the masks as they are now, for the end of a run; where they are sharded, every process has to ask."""
    return weight_cautions(*_weights(masks))


def _weights(masks: Masking) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    silent = {}
    for weight in masked_weights(masks.model):
        lives = to_matrix(whole(weight.mask), weight).any(1)
        silent[weight.name] = int((~lives).count_nonzero()), len(lives)
    return dict(masks.nnz), silent


def _rate_of(scheduler: Any) -> Callable[[int], float] | None:
    while (
        scheduler is not None and not isinstance(scheduler, LRScheduler) and hasattr(scheduler, "scheduler")
    ):
        scheduler = scheduler.scheduler  # an engine's wrapper
    if not isinstance(scheduler, LambdaLR):
        return None
    parts = list(zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True))
    return lambda step: max(float(base * change(step)) for base, change in parts)
