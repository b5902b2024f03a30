"""Masks of a stack of matrices, such as the experts of a mixture: every one of them keeps equally many weights.

Which rows meet which expert is for the router to say. As every expert keeps as many weights as the others, what a row
costs does not depend on that, and a plan closes whatever is routed where.
"""

from __future__ import annotations

from iftplan.masks.structure import MaskStructure, Matrices


def stack_counts(structure: MaskStructure, matrices: Matrices, experts: int) -> range:
    """Numbers of weights that all experts together can keep.

    Args:
        structure: what the mask of one expert may look like.
        matrices: of all experts, one expert's after the other's.
        experts: how many there are; 1 for a layer that is no stack.

    Raises:
        InfeasibleError: the structure does not fit the shapes.

    Example:
        >>> from iftplan.masks import Unstructured
        >>> stack_counts(Unstructured(), ((2, 3), (2, 3)), experts=2)
        range(0, 13, 2)
    """
    one = structure.counts(_one(matrices, experts))
    return range(one.start * experts, one[-1] * experts + 1, one.step * experts)


def stack_close(structure: MaskStructure, matrices: Matrices, experts: int, budget: int) -> int:
    """Largest number of weights, at most `budget`, that all experts together can keep.

    Args:
        structure: of every expert's mask.
        matrices: shapes (inputs, outputs) of all experts together.
        experts: how many.
        budget: weights.

    Raises:
        InfeasibleError: they keep more than that whatever is chosen.
    """
    return structure.close(_one(matrices, experts), budget // experts) * experts


def stack_log2_masks(structure: MaskStructure, matrices: Matrices, experts: int, nnz: int) -> float:
    """Bits needed to name one mask with `nnz` weights, each expert's being chosen by itself.

    Args:
        structure: of every expert's mask.
        matrices: shapes (inputs, outputs) of all experts together.
        experts: how many.
        nnz: weights that all of them keep.
    """
    return structure.log2_masks(_one(matrices, experts), nnz // experts) * experts


def _one(matrices: Matrices, experts: int) -> Matrices:
    return matrices[: len(matrices) // experts]
