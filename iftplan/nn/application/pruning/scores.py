"""Masks of the weights with the largest scores: as many as before, in the structure that they have."""

from __future__ import annotations

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import Unstructured
from iftplan.nn.masks.best import choose
from iftplan.nn.masks.masked_weights import MaskedWeight, from_matrix, to_matrix
from iftplan.nn.masks.top_k import top_k_mask


def magnitudes(weight: MaskedWeight) -> Tensor:
    """|W| as a matrix (outputs, inputs).

    Raises:
        InputError: a value is not finite.
    """
    scores = to_matrix(weight.parameter.detach().abs(), weight).float()
    if not bool(scores.isfinite().all()):
        raise InputError(
            f"{weight.name} holds values that are not finite, so its largest are not known; start from a checkpoint of a run that did not diverge."
        )
    return scores


@torch.no_grad()
def keep_largest_(weight: MaskedWeight, scores: Tensor, *, by_row: bool = False) -> None:
    """Move the mask of a weight to the largest scores that its structure allows, as many as before.

    Args:
        weight: whose mask moves; its values stay.
        scores: (outputs, inputs), not negative; experts one after the other.
        by_row: whether each output keeps as many, to within one, where the mask has no structure.
    """
    each = int(weight.mask.count_nonzero()) // weight.experts
    structure = weight.structure
    parts = scores.chunk(weight.experts)
    if by_row and structure == Unstructured():
        best = [largest_by_row(part, each) for part in parts]
    else:
        best = [choose(structure, part, each) for part in parts]
    weight.mask.copy_(from_matrix(torch.cat(best), weight))


def largest_by_row(scores: Tensor, nnz: int) -> Tensor:
    """Boolean matrix with the largest scores of every row, ⌊nnz/rows⌋ or one more.

    One more have the rows whose next score is largest.

    Example:
        >>> largest_by_row(torch.tensor([[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]]), 3).int().tolist()
        [[0, 0, 1], [1, 1, 0]]
    """
    kept, more = divmod(nnz, len(scores))
    mask = top_k_mask(scores, kept)
    if not more:
        return mask
    longer = top_k_mask(scores, kept + 1)
    gained = (scores * (longer & ~mask)).sum(1)
    return torch.where(top_k_mask(gained.view(1, -1), more).view(-1, 1), longer, mask)
