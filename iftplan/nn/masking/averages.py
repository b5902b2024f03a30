"""Averages of weights: beside masks that move (EMA, SWA), and over runs that share their masks (soups).

An average remembers weights that have been dropped since, so that it is no longer as sparse as the plan says, and
its masks are those of the day it was made. `follow_` puts it where the model is: the masks of the model, zero off
them. What has just grown is averaged with the zeros that it was before, as any average of that weight has it.

`soup` averages the end points of several runs. With masks in common the average is as sparse as each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.masks.masked_weights import SUFFIX, MaskedWeight, masked_weights
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


@check_arguments
@torch.no_grad()
def soup(states: Sequence[Mapping[str, Tensor]], names: Sequence[str] = ()) -> dict[str, Tensor]:
    """State dict with the mean of every weight over models with the same masks (arXiv 2306.16788).

    Batch statistics are averaged too, but those of an average are others: recompute them
    (`torch.optim.swa_utils.update_bn`) before you use it. Buffers of whole numbers are those of the first model.

    Args:
        states: state dicts of masked models, masks among them; of one shape and with equal masks.
        names: of the models, for messages; numbers if not given.

    Raises:
        InputError: there are none, or masks differ; says how far apart they are.
        StaleError: they are of different networks.

    Example:
        >>> halves = [{"weight": torch.tensor([2.0, 0.0])}, {"weight": torch.tensor([4.0, 0.0])}]
        >>> soup(halves)["weight"]
        tensor([3., 0.])
    """
    if not states:
        raise InputError("there are no models to average; give at least one state dict.")
    _refuse_no_states(states)
    called = names or [f"model {i}" for i in range(1, len(states) + 1)]
    first = states[0]
    for name, state in zip(called[1:], states[1:], strict=True):
        _refuse_another_network(first, state, called[0], name)
        _refuse_other_masks(first, state, called[0], name)
    return {name: _mean([state[name] for state in states]) for name in first}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor in tensors:
        total += tensor.to(total.device)
    return (total / len(tensors)).to(first.dtype)


def _refuse_no_states(states: Sequence[object]) -> None:
    for state in states:
        if not isinstance(state, Mapping):
            raise InputError(
                f"soup: one of the states is a {type(state).__name__}, and a state dict was asked for. Give model.state_dict() of each network."
            )


def _refuse_another_network(
    first: Mapping[str, Tensor], other: Mapping[str, Tensor], first_name: str, name: str
) -> None:
    ours, theirs = ({key: value.shape for key, value in state.items()} for state in (first, other))
    odd = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if odd:
        raise StaleError(
            f"{name} is another network than {first_name}: {', '.join(odd[:3])}{' …' if odd[3:] else ''} {'differs' if len(odd) == 1 else 'differ'}. Average runs of one plan."
        )


def _refuse_other_masks(
    first: Mapping[str, Tensor], other: Mapping[str, Tensor], first_name: str, name: str
) -> None:
    masks = [key for key, value in first.items() if key.endswith(SUFFIX) and value.dtype is torch.bool]
    kept = sum(int(first[key].sum()) for key in masks)
    missing = {key: int((first[key] & ~other[key].to(first[key].device)).sum()) for key in masks}
    added = sum(int((other[key].to(first[key].device) & ~first[key]).sum()) for key in masks)
    gone = sum(missing.values())
    if not gone and not added:
        return
    worst = max(missing, key=lambda key: missing[key])
    raise InputError(
        f"{name} and {first_name} do not share their masks: {gone} of the {kept} weights that {first_name} keeps are "
        f"masked in {name} ({gone / kept:.1%}; most in {worst.removesuffix(SUFFIX)}, {missing[worst]}), and their "
        f"average would keep {kept + added} weights. Start both from one checkpoint, with the method static."
    )
