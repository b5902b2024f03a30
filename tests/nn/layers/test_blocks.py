"""Pairs of factors in blocks against the matrices that they stand for, written out from the papers' formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iftplan.families.transforms.blocks import BlockGrid, FactorGrid, kronecker_grid, monarch_grid, root_grid
from iftplan.families.transforms.butterfly import ButterflyGrid, butterfly_grid
from iftplan.models.spec import Kind, LayerSpec
from iftplan.nn.layers.blocks import BlockPair, ButterflyProduct, KroneckerSum, product
from iftplan.nn.warmstart.blocks import project_

SIZES = [(8, 12), (12, 8), (10, 7), (7, 10), (16, 16), (5, 3)]
GRIDS = [monarch_grid, root_grid, kronecker_grid, butterfly_grid]


def stacks(pair: BlockPair) -> tuple[Tensor, Tensor]:
    """Both factors of linear layers as (blocks, outputs, inputs)."""
    u, v = pair.U.get_parameter("weight").double(), pair.V.get_parameter("weight").double()
    return u, v


def monarch_matrix(pair: BlockPair, inputs: int, outputs: int) -> Tensor:
    """M = P·L·Pᵀ·R entry by entry, with the stride permutation P (arXiv 2204.00595, section 3.1)."""
    u, v = stacks(pair)
    blocks, channels, size = u.shape
    _, height, width = v.shape
    right = torch.block_diag(*u)
    left = torch.block_diag(*v)
    order = [i * channels + a for a in range(channels) for i in range(blocks)]
    made = left @ right[order]
    assert made.shape == (len(v) * height, blocks * size) and width * len(v) == blocks * channels
    return made[:outputs, :inputs]


def btt_matrix(pair: BlockPair, rank: int, inputs: int, outputs: int) -> Tensor:
    """Every block of the grid as its own product of rank r (arXiv 2406.06248, section 2.2)."""
    u, v = stacks(pair)
    k, _, size = u.shape
    many, height, _ = v.shape
    made = torch.zeros(many * height, k * size, dtype=torch.float64)
    for i in range(k):
        for j in range(many):
            ours = u[i, j * rank : (j + 1) * rank]
            theirs = v[j].view(height, rank, k)[:, :, i]
            made[j * height : (j + 1) * height, i * size : (i + 1) * size] = theirs @ ours
    return made[:outputs, :inputs]


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_monarch_pair_is_the_product_of_the_paper(inputs: int, outputs: int, rank: int) -> None:
    torch.manual_seed(0)
    pair = BlockPair(nn.Linear(inputs, outputs), rank, monarch_grid(inputs, outputs)).double()
    x = torch.randn(3, 2, inputs, dtype=torch.float64)
    bias = pair.V.get_parameter("bias").double()[:outputs]
    assert torch.allclose(pair(x), x @ monarch_matrix(pair, inputs, outputs).T + bias)


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("rank", [1, 3])
def test_a_block_tensor_train_has_its_rank_in_every_block(inputs: int, outputs: int, rank: int) -> None:
    torch.manual_seed(0)
    pair = BlockPair(nn.Linear(inputs, outputs, bias=False), rank, root_grid(inputs, outputs)).double()
    x = torch.randn(4, inputs, dtype=torch.float64)
    assert torch.allclose(pair(x), x @ btt_matrix(pair, rank, inputs, outputs).T)


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_sum_of_kronecker_products_is_torchs(inputs: int, outputs: int, rank: int) -> None:
    """W = Σ A_r ⊗ B_r with A of V and B of U (arXiv 2406.06248, section 2), by torch.kron."""
    torch.manual_seed(0)
    grid = kronecker_grid(inputs, outputs)
    member = KroneckerSum(nn.Linear(inputs, outputs), rank, grid).double()
    with torch.no_grad():
        member.get_parameter("shift.bias").normal_()
    u = member.U.get_parameter("weight").view(grid.outputs, rank, -1)
    v = member.V.get_parameter("weight").view(-1, rank, grid.inputs)
    whole = sum(torch.kron(v[:, term].contiguous(), u[:, term].contiguous()) for term in range(rank))
    assert isinstance(whole, Tensor)
    x = torch.randn(3, 2, inputs, dtype=torch.float64)
    expected = x @ whole[:outputs, :inputs].T + member.get_parameter("shift.bias")
    assert torch.allclose(member(x), expected)
    weights = sum(p.numel() for n, p in member.named_parameters() if n.endswith("weight"))
    assert weights == grid.weights(LayerSpec("", Kind.LINEAR, inputs, outputs), rank)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 10, 3, stride=2, padding=1), (2, 6, 9, 9)),
        (nn.Conv1d(8, 5, 3, dilation=2), (2, 8, 11)),
        (nn.ConvTranspose2d(6, 9, 2, stride=2), (2, 6, 4, 5)),
        (nn.Conv3d(4, 4, 2), (1, 4, 3, 3, 3)),
        (nn.Linear(11, 6), (2, 3, 11)),
    ],
)
def test_outputs_have_the_shape_of_the_layer(layer: nn.Module, shape: tuple[int, ...], grid: Any) -> None:
    inputs = shape[-1] if isinstance(layer, nn.Linear) else shape[1]
    outputs = getattr(layer, "out_channels", None) or layer.out_features
    pair = product(layer, 2, grid(inputs, outputs))
    x = torch.randn(shape)
    assert pair(x).shape == layer(x).shape
    assert pair(x[0]).shape == layer(x[0]).shape


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(10, 7),
        nn.Conv2d(6, 10, 3, stride=2, padding=1),
        nn.ConvTranspose2d(6, 9, 2, stride=2),
    ],
)
@pytest.mark.parametrize(
    "grid",
    [
        BlockGrid(1, 1, 1),
        BlockGrid(2, 2, 2),
        BlockGrid(3, 2, 6),
        BlockGrid(3, 2, 6, shared=True),
        ButterflyGrid(2),
        ButterflyGrid(3),
    ],
)
def test_at_full_rank_a_product_is_the_dense_layer(layer: nn.Module, grid: FactorGrid) -> None:
    pair = product(layer, 60, grid)
    weight = layer.get_parameter("weight").detach()
    transposed = isinstance(layer, nn.ConvTranspose2d)
    matrix = weight.flatten(1) if transposed else weight.flatten(1).T
    assert torch.allclose(project_(pair, matrix), matrix, atol=1e-5)
    with torch.no_grad():
        bias = pair.own_bias()
        assert bias is not None
        bias.zero_()
        bias[: len(layer.get_parameter("bias"))] = layer.get_parameter("bias")
    x = torch.randn(2, 10) if isinstance(layer, nn.Linear) else torch.randn(2, 6, 8, 8)
    assert torch.allclose(pair(x), layer(x), atol=1e-4)


def test_the_projection_is_the_nearest_pair() -> None:
    """No descent from it gets nearer, and it is what one block's singular values say."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False).double()
    matrix = layer.weight.detach().T
    pair = BlockPair(layer, 2, BlockGrid(2, 2, 4)).double()
    made = project_(pair, matrix)
    lost = (made - matrix).square().sum()
    beyond = [
        torch.linalg.svdvals(matrix[r : r + 4, c : c + 4])[2:].square().sum() for r in (0, 4) for c in (0, 4)
    ]
    assert torch.allclose(lost, torch.stack(beyond).sum())
    assert torch.allclose(pair(torch.eye(8, dtype=torch.float64)), made)


def butterfly_matrix(member: ButterflyProduct, sizes: list[int], levels: int) -> Tensor:
    """Factors as block matrices that keep a block's number but for one bit, the highest first (arXiv 1903.05895, section 3.1)."""
    blocks = 2**levels
    made = torch.eye(blocks * sizes[0], dtype=torch.float64)
    for i, factor in enumerate(member.factors):
        stack = factor.get_parameter("weight").double()
        a, b, stride = sizes[i], sizes[i + 1], blocks >> (i + 1)
        whole = torch.zeros(blocks * b, blocks * a, dtype=torch.float64)
        for out in range(blocks):
            for into in (out & ~stride, out | stride):
                low, high = out % stride, out // (2 * stride)  # bits that come later, bits that were chosen
                matrix = stack[low * (blocks // 2 // stride) + high]
                rows = slice((out // stride % 2) * b, (out // stride % 2 + 1) * b)
                columns = slice((into // stride % 2) * a, (into // stride % 2 + 1) * a)
                whole[out * b : (out + 1) * b, into * a : (into + 1) * a] = matrix[rows, columns]
        made = whole @ made
    return made


@pytest.mark.parametrize(("inputs", "outputs"), [*SIZES, (32, 48), (17, 40)])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_product_of_butterflies_is_that_of_its_factors(inputs: int, outputs: int, rank: int) -> None:
    torch.manual_seed(0)
    grid = butterfly_grid(inputs, outputs)
    member = ButterflyProduct(nn.Linear(inputs, outputs, bias=False), rank, grid).double()
    sizes = [
        -(-inputs // grid.blocks),
        *[rank] * (grid.levels - 1),
        -(-outputs // grid.blocks),
    ]
    whole = butterfly_matrix(member, sizes, grid.levels)
    x = torch.randn(3, 2, inputs, dtype=torch.float64)
    assert torch.allclose(member(x), x @ whole[:outputs, :inputs].T)
    weights = sum(p.numel() for p in member.parameters())
    assert weights == grid.weights(LayerSpec("", Kind.LINEAR, inputs, outputs), rank)


def test_butterflies_find_the_factors_of_the_hadamard_matrix() -> None:
    """One of size 16 is a product of four factors with one channel a block (arXiv 2110.01230)."""
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(4):
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), hadamard)
    member = ButterflyProduct(nn.Linear(16, 16, bias=False), 1, ButterflyGrid(4)).double()
    assert torch.allclose(project_(member, hadamard), hadamard)
    assert torch.allclose(member(torch.eye(16, dtype=torch.float64)), hadamard)
    rest = hadamard + 0.01 * torch.eye(16, dtype=torch.float64)
    assert 0 < (project_(member, rest) - rest).abs().max() < 0.1


def test_the_nearest_sum_of_kronecker_products() -> None:
    """What is lost are the singular values that are left out, of the matrix of both factors' entries."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 2).double(), torch.randn(2, 4, 5).double()
    exact = sum(torch.kron(a, b) for a, b in zip(first, second, strict=True))
    assert isinstance(exact, Tensor)
    layer = nn.Linear(10, 12, bias=False).double()
    member = KroneckerSum(layer, 2, BlockGrid(2, 4, 8, shared=True)).double()
    assert torch.allclose(project_(member, exact.T), exact.T)
    assert torch.allclose(member(torch.eye(10, dtype=torch.float64)), exact.T)
    noisy = exact + 0.1 * torch.randn_like(exact)
    made = project_(member, noisy.T)
    entries = noisy.view(3, 4, 2, 5).permute(0, 2, 1, 3).reshape(6, 20)
    assert torch.allclose((made - noisy.T).square().sum(), torch.linalg.svdvals(entries)[2:].square().sum())
