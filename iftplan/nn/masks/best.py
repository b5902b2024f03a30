"""The best mask of a structure: the given number of weights with the largest scores that the structure allows.

Scores are anything that is worth more the larger it is: magnitudes, saliencies, gradients. They are numbers and never
masks: sorting booleans would choose by position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure
from iftplan.nn.masks.structures import masks_of
from iftplan.nn.masks.tiles import Solver


@check_arguments
def choose(structure: MaskStructure, scores: Tensor, nnz: int, solver: Solver = "fast") -> Tensor:
    """A boolean matrix of `scores`' shape (outputs, inputs) with exactly `nnz` true entries in the structure.

    The sum of the scores that are kept is the largest there is, but for transposable tiles above 4×4, where that is what
    `solver="exact"` asks for. Ties go to the lowest index, so that every process chooses alike.

    Args:
        structure: what the mask may look like.
        scores: not negative and not NaN; inputs of a convolution as `iftplan.nn.masks.masked_weights.to_matrix` has them, channels
            fastest, because patterns run along channels.
        nnz: a count that the structure allows (`MaskStructure.counts`).
        solver: of transposable tiles; "exact" needs SciPy.

    Raises:
        InputError: boolean scores, or a count that no mask of the structure has.

    Example:
        >>> from iftplan.masks import NM
        >>> choose(NM(1, 2), torch.tensor([[1.0, 2.0, 4.0, 3.0]]), 2).int().tolist()
        [[0, 1, 1, 0]]
    """
    _check(structure, scores, nnz)
    return masks_of(structure).best(scores, nnz, solver)


def _check(structure: MaskStructure, scores: Tensor, nnz: int) -> None:
    if scores.dtype is torch.bool:
        raise InputError(
            "masks are chosen by scores, but these are booleans; pass magnitudes, such as weight.abs()."
        )
    outputs, inputs = scores.shape
    if nnz not in structure.counts(((inputs, outputs),)):
        raise InputError(
            f"{structure} masks of {inputs} inputs and {outputs} outputs cannot keep {nnz} weights; the nearest is {structure.close(((inputs, outputs),), max(nnz, structure.counts(((inputs, outputs),)).start))}."
        )
