"""The best mask of a structure: so many weights of a matrix, those with the largest scores that the structure lets stay.

Scores are anything that is worth more the larger it is: magnitudes, saliencies, gradients. They are numbers and never
masks: sorting booleans would choose by position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.masks import NM, Block, Channel, ConstantFanIn, MaskStructure, Unstructured
from iftplan.nn.masks.cells import best_pattern, cut, glue
from iftplan.nn.masks.tiles import Solver
from iftplan.nn.masks.top_k import largest


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
        >>> choose(NM(1, 2), torch.tensor([[1.0, 2.0, 4.0, 3.0]]), 2).int().tolist()
        [[0, 1, 1, 0]]
    """
    _check(structure, scores, nnz)
    outputs, inputs = scores.shape
    match structure:
        case Unstructured():
            return largest(scores.reshape(1, -1), nnz).view(outputs, inputs)
        case ConstantFanIn():
            return largest(scores, nnz // max(outputs, 1))
        case Channel():
            kept = largest(scores.sum(1).view(1, -1), nnz // max(inputs, 1))
            return kept.view(-1, 1).repeat(1, inputs)
        case Block():
            return _best_blocks(structure, scores, nnz)
        case NM():
            return best_pattern(structure, scores, nnz, solver)
        case _:
            raise InputError(f"masks of structure {structure} cannot be chosen by scores.")


def _check(structure: MaskStructure, scores: Tensor, nnz: int) -> None:
    if scores.dtype is torch.bool:
        raise InputError(
            "masks are chosen by scores, and these are booleans: a mask sorts by position; give magnitudes, such as weight.abs()."
        )
    outputs, inputs = scores.shape
    if nnz not in structure.counts(((inputs, outputs),)):
        raise InputError(
            f"{structure} masks of {inputs} inputs and {outputs} outputs cannot keep {nnz} weights; the nearest is {structure.close(((inputs, outputs),), max(nnz, structure.counts(((inputs, outputs),)).start))}."
        )


def _best_blocks(structure: Block, scores: Tensor, nnz: int) -> Tensor:
    """Whole blocks by their sums; what hangs over the edge stays."""
    (outputs, inputs), (width, height) = scores.shape, (structure.width, structure.height)
    bottom, right = outputs // width * width, inputs // height * height
    mask = torch.ones_like(scores, dtype=torch.bool)
    whole = scores[:bottom, :right]
    if whole.numel():
        sums = cut(whole, width, height).sum((1, 2))
        kept = (nnz - (scores.numel() - whole.numel())) // structure.area
        chosen = largest(sums.view(1, -1), kept).view(-1, 1, 1).expand(-1, width, height)
        mask[:bottom, :right] = glue(chosen.contiguous(), whole)
    return mask


@dataclass(frozen=True, slots=True)
class Whole:
    """The matrix as it is, for algorithms that choose in all of it at once."""

    def rows(self, matrix: Tensor) -> Tensor:
        """Scores of the matrix itself, (outputs, inputs)."""
        return matrix

    def mask(self, rows: Tensor, like: Tensor) -> Tensor:
        """The chosen matrix itself."""
        return rows

    def units(self, nnz: int, matrix: Tensor) -> int:
        """Number of weights that stay."""
        return nnz
