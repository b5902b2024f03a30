"""Averages of weights (EMA, SWA) beside masks that move.

An average remembers weights that have been dropped since, so that it is no longer as sparse as the plan says, and
its masks are those of the day it was made. `follow_` puts it where the model is: the masks of the model, zero off
them. What has just grown is averaged with the zeros that it was before, as any average of that weight has it.
"""

from __future__ import annotations

import torch
from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.nn.masks.masked_weights import MaskedWeight, masked_weights
from iftplan.nn.meta.wrappers import bare


@check_arguments
@torch.no_grad()
def follow_(average: nn.Module, model: nn.Module) -> nn.Module:
    """Give an average of a model's weights the model's masks, in place; call it after each update of the average.

    Batch statistics are not averaged: recompute them (`torch.optim.swa_utils.update_bn`) before you use the average.

    Args:
        average: an `AveragedModel`, or a copy of the model that holds the averaged weights.
        model: the model in training.

    Returns:
        The average.

    Raises:
        InputError: average and model are different networks.

    Example:
        >>> ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))  # doctest: +SKIP
        >>> ema.update_parameters(model); follow_(ema, model)  # doctest: +SKIP
    """
    averaged, trained = _weights(average), _weights(model)
    if {n: w.mask.shape for n, w in averaged.items()} != {n: w.mask.shape for n, w in trained.items()}:
        raise InputError(
            f"the average has {len(averaged)} masked weights and the model {len(trained)}; create the average "
            "from the model after the masks were applied."
        )
    for name, weight in averaged.items():
        weight.mask.copy_(trained[name].mask)
        weight.parameter.masked_fill_(~weight.mask, 0)
    return average


def _weights(model: nn.Module) -> dict[str, MaskedWeight]:
    return {weight.name: weight for weight in masked_weights(bare(model))}
