"""Random masks with exact counts: one weight matrix, one structure, one stream of random numbers.

Counts are whole numbers from a plan and never the outcome of coin flips. Every mask of a structure is possible, and all
are equally likely, but for transposable tiles above 4×4, which are shuffled circulants, and at edges.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import MaskStructure
from iftplan.nn.masks.structured import Shape
from iftplan.nn.masks.structures import masks_of


def random_mask(structure: MaskStructure, shape: Shape, nnz: int, generator: Generator) -> Tensor:
    """Random boolean matrix of `shape` (outputs, inputs) with exactly `nnz` true entries.

    Args:
        structure: of the mask.
        shape: (outputs, inputs).
        nnz: how many weights are kept.
        generator: of the random numbers.

    Raises:
        InputError: the structure has no mask of this shape and count.
    """
    outputs, inputs = shape
    try:
        counts = structure.counts(((inputs, outputs),))
    except InfeasibleError as error:
        raise InputError(str(error)) from error
    if nnz not in counts:
        raise InputError(
            f"{structure} masks of {inputs} inputs and {outputs} outputs cannot keep {nnz} weights; a plan with this structure keeps whole patterns only."
        )
    return masks_of(structure).draw(shape, nnz, generator)


def shares(structure: MaskStructure, nnz: int, shapes: Sequence[Shape]) -> tuple[int, ...]:
    """Number of weights that each of one layer's matrices keeps; they add up to `nnz`.

    Args:
        structure: what the masks look like.
        nnz: weights that the layer keeps.
        shapes: of its matrices.

    Raises:
        InputError: the structure does not fit one of them.
    """
    try:
        return structure.shares(tuple((inputs, outputs) for outputs, inputs in shapes), nnz)
    except InfeasibleError as error:
        raise InputError(str(error)) from error
