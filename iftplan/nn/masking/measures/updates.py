"""Update sparsity between two states of a network: which weights training moved, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError, StaleError
from iftplan.nn.export.sparse_files.contents import same_tensors
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.plans.audit.updates import UpdateReport, WeightUpdate

THRESHOLDS = (0.0, 1e-5)
"""Sizes of a change: any at all, and the tolerance of arXiv 2505.11711."""
_STATISTICS = ("running_mean", "running_var")


@check_arguments
@torch.no_grad()
def weight_updates(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    names: tuple[str, str] = ("before", "after"),
) -> UpdateReport:
    """Report of the weights with |Δθ| above each threshold, in numbers of weights (arXiv 2505.11711).

    Where a weight has a mask, those entries count that either state keeps: others cannot move. Batch statistics are no
    weights.

    Args:
        before: state dict of a network.
        after: state dict of the same network, later; one of them may have no masks.
        thresholds: not negative.
        names: of both, for the report and messages.

    Raises:
        InputError: a threshold is negative, or there is none.
        StaleError: the states are of different networks.

    Example:
        >>> old, new = {"weight": torch.tensor([1.0, 2.0, 3.0])}, {"weight": torch.tensor([1.0, 2.5, 3.0])}
        >>> weight_updates(old, new, [0.0]).total.moved
        (1,)
    """
    if not thresholds or min(thresholds) < 0:
        raise InputError(
            f"thresholds are {list(thresholds)}; give sizes of a change that are not negative, such as 0 and 1e-5."
        )
    ours, theirs = (_weights(state) for state in (before, after))
    odd = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    )
    if odd:
        raise StaleError(
            f"{names[1]} is another network than {names[0]}: {', '.join(odd[:3])}{' …' if odd[3:] else ''} {'differs' if len(odd) == 1 else 'differ'}. Compare checkpoints of one plan."
        )
    tied = same_tensors(ours).keys() & same_tensors(theirs).keys()  # one weight under two names moves once
    layers = tuple(
        _update(name, ours[name], theirs[name], _kept(name, before, after), thresholds)
        for name in ours
        if name not in tied
    )
    return UpdateReport(*names, tuple(thresholds), layers)


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in state.items()
        if value.is_floating_point() and not name.endswith(_STATISTICS)
    }


def _kept(name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor | None:
    """Entries that either state keeps; None for all."""
    masks = [state.get(name + SUFFIX) for state in (before, after)]
    if masks[0] is None or masks[1] is None:
        return None
    return masks[0] | masks[1].to(masks[0].device)


def _update(
    name: str, before: Tensor, after: Tensor, kept: Tensor | None, thresholds: Sequence[float]
) -> WeightUpdate:
    base = before.double()
    change = after.to(before.device).double() - base
    if kept is not None:
        base, change = base[kept], change[kept]
    moved = tuple(int((~(change.abs() <= limit)).sum()) for limit in thresholds)  # NaN has moved
    return WeightUpdate(name, change.numel(), moved, float(change.square().sum()), float(base.square().sum()))
