"""Whether a mask has the structure that it should have."""

from __future__ import annotations

from torch import Tensor

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import MaskStructure, parse_mask
from iftplan.nn.masks.structures import masks_of


@check_arguments
def holds(structure: MaskStructure | str, mask: Tensor) -> bool:
    """Whether a boolean matrix (outputs, inputs), or the mask of a convolution, has the structure.

    An N:M mask may have short groups, with N-1 weights; `structure.short` is the number of them for a given count.

    Args:
        structure: as a value or in the notation of plans.
        mask: (outputs, inputs); or (outputs, inputs, *kernel) as beside a convolution's weight, but for transposed ones.

    Raises:
        InputError: a structure that cannot be read, or a mask with no inputs and outputs.

    Example:
        >>> import torch
        >>> holds("1:2", torch.tensor([[True, False, True, True]]))
        False
    """
    if mask.ndim < 2:
        raise InputError(f"a mask has two dimensions, outputs and inputs, but this one has {mask.ndim}.")
    if isinstance(structure, str):
        structure = parse_mask(structure)
    if mask.ndim > 2:
        mask = mask.movedim(1, -1).flatten(1)  # patterns run along channels
    outputs, inputs = mask.shape
    try:
        if int(mask.count_nonzero()) not in structure.counts(((inputs, outputs),)):
            return False
    except InfeasibleError:
        return False
    return masks_of(structure).holds(mask)
