"""Trained dense weights for pairs of factors in blocks: the nearest that these can hold.

Block-diagonal factors: block by block, by singular values (arXiv 2204.00595, section 3.3). Kronecker products: by those of
the matrix whose rows are the entries of one factor and whose columns are those of the other (Van Loan and Pitsianis 1993).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iftplan.nn.layers.blocks import BlockLinear, BlockPair


@torch.no_grad()
def project_(member: BlockPair, matrix: Tensor) -> Tensor:
    """Set both factors to the nearest pair to a matrix, in the Frobenius norm; return what they make.

    Every block of the grid is a matrix by itself, of as many ranks as channels lead from its inputs to its outputs; its
    largest singular values are the best that these can hold.

    Args:
        member: whose factors are set.
        matrix: (inputs, outputs), trained; a convolution's kernel beside its inputs, a transposed one's beside its outputs.
    """
    grid = member.grid
    if grid.shared:
        return _project_sum_(member, matrix)
    u = _stack(member.U, grid.inputs)
    v = _stack(member.V, grid.outputs)
    (_, channels, rows), (_, columns, _) = u.shape, v.shape
    padded = matrix.new_zeros(grid.inputs * rows, grid.outputs * columns)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    made = torch.zeros_like(padded)
    place = torch.arange(
        grid.inputs * channels
    )  # to which the shuffle deals channel a of block i: a·blocks + i
    of_input, channel, of_output = place % grid.inputs, place // grid.inputs, place // v.shape[2]
    for i in range(grid.inputs):
        for j in range(grid.outputs):
            ways = ((of_input == i) & (of_output == j)).nonzero().flatten()
            block = (slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns))
            left, right = _truncated(padded[block], len(ways))
            u[i, channel[ways]] = left.T
            v[j][:, ways - j * v.shape[2]] = right.T
            made[block] = left @ right
    _write_(member.U, u)
    _write_(member.V, v)
    return made[: matrix.shape[0], : matrix.shape[1]]


def _project_sum_(member: BlockPair, matrix: Tensor) -> Tensor:
    """The nearest sum of Kronecker products: its entries are those of a low-rank matrix, in another order."""
    grid = member.grid
    u, v = _stack(member.U, 1)[0], _stack(member.V, 1)[0]
    rows, rank = u.shape[1], len(u) // grid.outputs
    columns = -(-member.cut // grid.outputs)
    taps = len(v) // columns  # of a transposed convolution, beside its outputs
    padded = matrix.new_zeros(grid.inputs * rows, columns * grid.outputs * taps)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    apart = padded.view(grid.inputs, rows, columns, grid.outputs, taps).permute(1, 3, 0, 2, 4)
    left, right = _truncated(apart.reshape(rows * grid.outputs, -1), rank)
    u = left.view(rows, grid.outputs, rank).permute(1, 2, 0).reshape(u.shape)
    v = right.view(rank, grid.inputs, columns, taps).permute(2, 3, 0, 1).reshape(v.shape)
    _write_(member.U, u[None])
    _write_(member.V, v[None])
    made = (left @ right).view(apart.shape).permute(2, 0, 3, 1, 4).reshape(padded.shape)
    return made[: matrix.shape[0], : matrix.shape[1]]


def _truncated(block: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(m, rank) and (rank, n) whose product is the best of that rank; beyond full rank zero on the second side."""
    left, values, right = torch.linalg.svd(block.double(), full_matrices=False)
    root = values[:rank].sqrt()
    u, v = (left[:, :rank] * root).to(block.dtype), (root[:, None] * right[:rank]).to(block.dtype)
    beyond = rank - u.shape[1]
    if beyond <= 0:
        return u, v
    spare = torch.randn(len(u), beyond, generator=torch.Generator().manual_seed(0)).to(u)
    spare = spare * u.square().mean().sqrt()
    return torch.cat([u, spare], 1), torch.cat([v, v.new_zeros(beyond, v.shape[1])])


def _stack(module: nn.Module, blocks: int) -> Tensor:
    """A copy of the weight as (blocks, outputs, inputs)."""
    weight = module.get_parameter("weight").detach()
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return weight.reshape(blocks, weight.shape[0] // blocks, -1).mT.clone()
    stacked = weight if isinstance(module, BlockLinear) else weight.flatten(1)
    return stacked.reshape(blocks, -1, stacked.shape[-1]).clone()


def _write_(module: nn.Module, stack: Tensor) -> None:
    weight = module.get_parameter("weight")
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    weight.copy_((stack.mT if transposed else stack).reshape(weight.shape))
