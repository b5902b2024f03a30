"""Whether a mask has the structure that it should have."""

from __future__ import annotations

from torch import Tensor

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InfeasibleError
from iftplan.masks import MaskStructure
from iftplan.nn.masks.structures import masks_of


@check_arguments
def holds(structure: MaskStructure, mask: Tensor) -> bool:
    """Whether a boolean matrix (outputs, inputs) is a mask of the structure.

    An N:M mask may have short groups, with N-1; `structure.short` says how many a count implies.

    Example:
        >>> import torch
        >>> from iftplan.masks import NM
        >>> holds(NM(1, 2), torch.tensor([[True, False, True, True]]))
        False
    """
    outputs, inputs = mask.shape
    try:
        if int(mask.count_nonzero()) not in structure.counts(((inputs, outputs),)):
            return False
    except InfeasibleError:
        return False
    return masks_of(structure).holds(mask)
