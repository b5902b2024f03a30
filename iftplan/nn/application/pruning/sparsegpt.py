"""SparseGPT (arXiv 2301.00774): columns are pruned one after the other, and those to the right make up for each.

H = X·Xᵀ + λ·I of a layer's inputs; with H⁻¹ = UᵀU, U upper triangular, row j of U is row j of the inverse that is left
once columns before j are done, over the root of its first entry. Pruning w_j costs (w_j/U_jj)², and adds -w_j/U_jj·U_j,:
to the columns after it (Algorithm 1).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.linalg import cholesky

from iftplan.masks import MaskStructure, Unstructured
from iftplan.masks.structures.n_m import NM
from iftplan.nn.masks.best import choose

BLOCK: Final = 128
"""Columns that share one choice of the mask, where it has no structure (B_s of the paper)."""
DAMPING: Final = 0.01
"""λ as a part of the mean diagonal of X·Xᵀ."""


@torch.no_grad()
def reconstructed(
    weight: Tensor, products: Tensor, nnz: int, structure: MaskStructure | None = None, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Pruned matrix whose weights that stay make up for the others, and its mask.

    Unstructured masks are chosen a block of columns at a time, N:M masks a group at a time, both among weights that have
    made up already; other structures before anything is changed.

    Args:
        weight: (outputs, inputs), not changed.
        products: X·Xᵀ, (groups, inputs, inputs); outputs are those of one group after the other.
        nnz: weights that stay.
        structure: of the mask; None for none.
        block: columns of a block.
    """
    structure = structure or Unstructured()
    left = weight.double().clone(memory_format=torch.contiguous_format)
    outputs, inputs = left.shape
    factors = inverse_factors(products)
    dead = products.diagonal(dim1=1, dim2=2) == 0
    groups = left.view(len(factors), -1, inputs)  # a view: both are the same weights
    groups.masked_fill_(dead.unsqueeze(1), 0)
    diagonal = factors.diagonal(dim1=1, dim2=2)
    mask = torch.zeros_like(left, dtype=torch.bool)
    for start, end, kept, pattern in _blocks(structure, (outputs, inputs), nnz, block):
        costs = (groups[..., start:end] / diagonal[:, None, start:end]).square().reshape(outputs, -1)
        mask[:, start:end] = choose(pattern, costs, kept)
        gone = torch.zeros_like(groups[..., start:end])
        for j in range(start, end):
            column = groups[..., j]
            off = torch.where(mask[:, j].view_as(column), 0.0, column) / diagonal[:, j : j + 1]
            groups[..., j:end] -= off.unsqueeze(2) * factors[:, j : j + 1, j:end]
            gone[..., j - start] = off
        groups[..., end:] -= gone @ factors[:, start:end, end:]  # once a block: it moves all the rest
    return (left * mask).to(weight.dtype), mask


def inverse_factors(products: Tensor) -> Tensor:
    """Upper factors U of (X·Xᵀ + λI)⁻¹ = UᵀU, one for each group; inputs that are never other than zero stand alone.

    Args:
        products: (groups, inputs, inputs).
    """
    damped = products.double().clone()
    diagonal = damped.diagonal(dim1=1, dim2=2)
    diagonal.masked_fill_(diagonal == 0, 1)
    diagonal += DAMPING * diagonal.mean(1, keepdim=True)
    factor: Tensor = cholesky(torch.cholesky_inverse(cholesky(damped)), upper=True)
    return factor


def _blocks(
    structure: MaskStructure, shape: tuple[int, int], nnz: int, block: int
) -> list[tuple[int, int, int, MaskStructure]]:
    """First and last column of each choice, how many weights it keeps, and in which structure."""
    outputs, inputs = shape
    if structure == Unstructured():
        starts = range(0, inputs, block)
        bounds = [nnz * min(i, inputs) // inputs for i in range(0, inputs + block, block)]
        return [
            (s, min(s + block, inputs), bounds[i + 1] - bounds[i], structure) for i, s in enumerate(starts)
        ]
    if not isinstance(structure, NM) or structure.transposable:
        return [(0, inputs, nnz, structure)]
    width = structure.of
    ends = [(s, min(s + width, inputs)) for s in range(0, inputs, width)]
    full = [structure.counts(((e - s, outputs),))[-1] for s, e in ends]
    whole = max(1, inputs // width)
    short = sum(full) - nnz  # groups with N-1, as many in each column of groups
    fewer = [short * (i + 1) // whole - short * i // whole if i < whole else 0 for i in range(len(ends))]
    return [(s, e, n - f, structure) for (s, e), n, f in zip(ends, full, fewer, strict=True)]
