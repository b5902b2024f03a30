"""Block-diagonal and butterfly masks: written out from their definition, planned, applied and refused."""

from __future__ import annotations

from fractions import Fraction
from math import log2

import pytest
import torch
from torch import Generator

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import parse_mask
from iftplan.nn import apply, masked_weights, measure_applied
from iftplan.nn.masks.best import choose
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.drawing import random_mask
from iftplan.nn.masks.view import is_of
from tests.support.models.applied import HOSTS, host


def factors(blocks: int, stride: int) -> torch.Tensor:
    """Blocks of I + B_2 + … + B_k, B_s with the places of a butterfly factor of stride s (arXiv 2112.00029, definition 3.3)."""
    found = torch.eye(blocks)
    size = 2
    while size <= stride:
        half = size // 2
        factor = torch.tensor([[1, 1], [1, 1]]).kron(torch.eye(half, dtype=torch.int64))
        found = found + torch.block_diag(*[factor] * (blocks // size))
        size *= 2
    return found > 0


@pytest.mark.parametrize(("blocks", "stride"), [(2, 2), (4, 2), (4, 4), (8, 2), (8, 4), (8, 8), (16, 8)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3)])
def test_a_flat_butterfly_keeps_the_blocks_of_the_sum(
    blocks: int, stride: int, height: int, width: int
) -> None:
    text = f"butterfly{blocks}" + (f"x{stride}" if stride < blocks else "")
    structure = parse_mask(text)
    assert str(structure) == text
    assert structure.density == Fraction(1 + int(log2(stride)), blocks)
    expected = factors(blocks, stride).repeat_interleave(height, 0).repeat_interleave(width, 1)
    nnz = int(expected.sum())
    assert list(structure.counts(((blocks * width, blocks * height),))) == [nnz]
    shape = (blocks * height, blocks * width)
    assert torch.equal(random_mask(structure, shape, nnz, Generator()), expected)
    assert torch.equal(choose(structure, torch.rand(shape), nnz), expected)
    assert holds(structure, expected)
    assert not holds(structure, expected.flip(0)) or torch.equal(expected.flip(0), expected)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_one_block_is_dense_and_more_are_diagonal(blocks: int) -> None:
    shape, structure = (4 * blocks, 2 * blocks), parse_mask(f"blockdiag{blocks}")
    nnz = 8 * blocks
    expected = torch.block_diag(*[torch.ones(4, 2)] * blocks) > 0
    assert torch.equal(random_mask(structure, shape, nnz, Generator()), expected)
    shuffled = parse_mask(f"blockdiag{blocks}+shuffle")
    order = [j for i in range(blocks) for j in range(i, 2 * blocks, blocks)]
    assert torch.equal(random_mask(shuffled, shape, nnz, Generator())[:, order], expected)
    assert structure.density == Fraction(1, blocks)


def test_shuffled_layers_in_a_row_mix_and_plain_ones_do_not() -> None:
    for text, reached in (("blockdiag4", 4 * 16), ("blockdiag4+shuffle", 16 * 16)):
        mask = random_mask(parse_mask(text), (16, 16), 64, Generator()).double()
        assert int((mask @ mask > 0).sum()) == reached


@pytest.mark.parametrize("text", ["butterfly6", "butterfly8x3", "butterfly8x16", "butterfly4x1"])
def test_what_is_no_butterfly_is_refused_with_the_nearest(text: str) -> None:
    with pytest.raises(InputError, match=r"nearest is butterfly\d+x\d+"):
        parse_mask(text)


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="nearest size that can is 12×8"):
        parse_mask("blockdiag4").counts(((10, 8),))


@pytest.mark.parametrize("family", ["wide", "doped"])
@pytest.mark.parametrize("mask", ["blockdiag4", "blockdiag4+shuffle", "butterfly8", "butterfly16x4"])
@pytest.mark.parametrize("name", ["perceptron", "GPT-2"])
def test_plans_are_met_and_what_is_left_is_said(name: str, mask: str, family: str) -> None:
    """Pixelated butterfly is doped with a butterfly, low rank + block is doped with a block diagonal."""
    model = host(name)
    inputs = tuple(map(str, HOSTS[name][1]))
    spec = ift.read_model(model, *inputs, widths=family == "wide")
    try:
        plan = ift.plan(spec, family, mask=mask)
    except InfeasibleError as error:
        assert family == "doped"
        assert "cannot be divided" in str(error)
        return
    assert plan.sparsity == 1 - parse_mask(mask).density
    assert plan.residual_macs >= 0
    assert plan.residual_macs == 0 or any("unspent" in note for note in plan.notes)
    applied = apply(plan, model)
    assert measure_applied(plan, applied, engines=("meta", "flop_counter")).passed
    for weight in masked_weights(applied):
        assert is_of(parse_mask(mask), weight)


def test_doped_takes_no_pattern_that_could_keep_less() -> None:
    with pytest.raises(InputError, match="only wider layers can meet the budget"):
        ift.plan(ift.read_model(host("perceptron"), "4x12"), "doped", mask="2:4")
