"""Trained dense weights for products of factors in blocks: the nearest that these can hold.

Block-diagonal factors: block by block, by singular values (arXiv 2204.00595, section 3.3). Kronecker products: by those of
the matrix whose rows are the entries of one factor and whose columns are those of the other (Van Loan and Pitsianis 1993).
Butterflies: by those of blocks, the middle first (Zheng, Riccietti, Gribonval, arXiv 2110.01230).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iftplan.nn.layers.blocks import BlockLinear, BlockPair, BlockProduct, ButterflyProduct
from iftplan.nn.warmstart.truncation import truncated


@torch.no_grad()
def project_(member: BlockProduct, matrix: Tensor) -> Tensor:
    """Set the factors to the nearest product to a matrix, in the Frobenius norm; return what they make.

    Every block of a pair is a matrix by itself, of as many ranks as channels lead from its inputs to its outputs; its
    largest singular values are the best that these can hold. Butterflies are set to a near product: the nearest where the
    matrix is one.

    Args:
        member: whose factors are set.
        matrix: (inputs, outputs), trained; a convolution's kernel beside its inputs, a transposed one's beside its outputs.
    """
    if isinstance(member, ButterflyProduct):
        return _project_butterfly_(member, matrix)
    assert isinstance(member, BlockPair)
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
            left, right = truncated(padded[block], len(ways))
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
    left, right = truncated(apart.reshape(rows * grid.outputs, -1), rank)
    u = left.view(rows, grid.outputs, rank).permute(1, 2, 0).reshape(u.shape)
    v = right.view(rank, grid.inputs, columns, taps).permute(2, 3, 0, 1).reshape(v.shape)
    _write_(member.U, u[None])
    _write_(member.V, v[None])
    made = (left @ right).view(apart.shape).permute(2, 0, 3, 1, 4).reshape(padded.shape)
    return made[: matrix.shape[0], : matrix.shape[1]]


def _project_butterfly_(member: ButterflyProduct, matrix: Tensor) -> Tensor:
    """Factors from the middle outwards, each block of what is left by its largest singular values."""
    stacks = [_stack(factor, member.pairs) for factor in member.factors]
    blocks = 2 * member.pairs
    columns, rows = stacks[0].shape[2] // 2, stacks[-1].shape[1] // 2
    padded = matrix.new_zeros(blocks * columns, blocks * rows)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    made = _split_(stacks, padded.T[None, None])
    for factor, stack in zip(member.factors, stacks, strict=True):
        _write_(factor, stack)
    return made[0, 0].T[: matrix.shape[0], : matrix.shape[1]]


def _split_(stacks: list[Tensor], whole: Tensor) -> Tensor:
    """Set factors so that they make matrices, as far as their sizes can; return what they make.

    Between two factors a block is named by bits of inputs that no factor has mixed yet and bits of outputs that all
    before it have chosen. Every such block is one product of the matrices on both sides.

    Args:
        stacks: of neighbouring factors, (blocks/2, outputs, inputs) each; written.
        whole: (bits of inputs that come later, bits of outputs that came earlier, outputs, inputs).
    """
    later, earlier, outputs, inputs = whole.shape
    if len(stacks) == 1:
        stacks[0].copy_(whole.reshape(stacks[0].shape))
        return whole
    cut = len(stacks) // 2
    p, q, rank = 2**cut, 2 ** (len(stacks) - cut), stacks[cut].shape[2] // 2
    rows, columns = outputs // (p * q), inputs // (p * q)
    apart = whole.reshape(later, earlier, p, q, rows, p, q, columns).permute(0, 1, 2, 6, 3, 4, 5, 7)
    left, right = truncated(apart.reshape(later, earlier, p, q, q * rows, p * columns), rank)
    first = right.permute(3, 0, 1, 2, 4, 5).reshape(q * later, earlier, p * rank, p * columns)
    second = left.permute(0, 1, 2, 4, 3, 5).reshape(later, earlier * p, q * rows, q * rank)
    first, second = _split_(stacks[:cut], first), _split_(stacks[cut:], second)
    right = first.view(q, later, earlier, p, rank, p * columns).permute(1, 2, 3, 0, 4, 5)
    left = second.view(later, earlier, p, q * rows, q, rank).permute(0, 1, 2, 4, 3, 5)
    made = (left @ right).view(later, earlier, p, q, q, rows, p, columns).permute(0, 1, 2, 4, 5, 6, 3, 7)
    return made.reshape(whole.shape)


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
