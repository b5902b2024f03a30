"""Every structure written out: its counts, how many masks it has, which they are, and the best of them."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from math import isclose, log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, nn

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import NM, Block, MaskStructure, parse_mask
from iftplan.nn.masks.best import choose
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.drawing import random_mask
from iftplan.nn.masks.masked_weights import MaskedWeight, from_matrix, to_matrix
from tests.support.scores import KINDS, scores_of

Mask = tuple[tuple[int, ...], ...]
"""Rows are outputs, columns inputs."""


def sums(cells: list[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    return [sum(row) for row in cells], [sum(column) for column in zip(*cells, strict=True)]


def pieces(mask: Mask, height: int, width: int) -> list[list[tuple[int, ...]]]:
    """The tiles of a mask from the upper left, those that hang over the edge cut off."""
    rows, columns = len(mask), len(mask[0])
    return [
        [row[left : left + width] for row in mask[top : top + height]]
        for top in range(0, rows, height)
        for left in range(0, columns, width)
    ]


def tile_is_allowed(cells: list[tuple[int, ...]], kept: int, of: int) -> bool:
    by_row, by_column = sums(cells)
    height, width = len(by_row), len(by_column)
    if (height, width) == (of, of):
        return set(by_row + by_column) in ({kept}, {kept - 1})
    most = min(height * min(kept, width), width * min(kept, height))
    return max(by_row + by_column) <= kept and sum(by_row) == most


def group_is_allowed(cells: list[tuple[int, ...]], kept: int, of: int) -> bool:
    (group,) = cells
    return sum(group) in ({kept, kept - 1} if len(group) == of else {min(kept, len(group))})


def allowed(text: str, mask: Mask) -> bool:
    """The rule of a structure, from its definition and nothing of ours."""
    by_output = [sum(row) for row in mask]
    match text.removesuffix("+pad"):
        case "unstructured":
            return True
        case "fan-in":
            return len(set(by_output)) == 1
        case "channel":
            return set(by_output) <= {0, len(mask[0])}
        case block if block.startswith("block"):
            inputs, outputs = map(int, block.removeprefix("block").split("x"))
            filled = [{entry for row in cells for entry in row} for cells in pieces(mask, outputs, inputs)]
            areas = [len(cells) * len(cells[0]) for cells in pieces(mask, outputs, inputs)]
            whole = inputs * outputs
            return all(
                len(x) == 1 and (area == whole or x == {1}) for x, area in zip(filled, areas, strict=True)
            )
        case pattern:
            kept, of = map(int, pattern.rstrip("T").split(":"))
            if pattern.endswith("T"):
                return all(tile_is_allowed(cells, kept, of) for cells in pieces(mask, of, of))
            return all(group_is_allowed(cells, kept, of) for cells in pieces(mask, 1, of))


def written_out(text: str, inputs: int, outputs: int) -> dict[int, list[Mask]]:
    """All masks of a structure by their count."""
    found = defaultdict(list)
    for bits in product((0, 1), repeat=inputs * outputs):
        mask = tuple(bits[start : start + inputs] for start in range(0, len(bits), inputs))
        if allowed(text, mask):
            found[sum(bits)].append(mask)
    return found


CASES = [
    ("unstructured", 4, 2),
    ("1:2", 4, 3),
    ("2:4", 4, 3),
    ("3:4", 4, 2),
    ("1:2T", 2, 4),
    ("1:3T", 3, 3),
    ("2:3T", 3, 3),
    ("1:2+pad", 3, 3),
    ("2:3+pad", 5, 2),
    ("3:4+pad", 6, 2),
    ("1:2T+pad", 3, 3),
    ("2:3T+pad", 4, 3),
    ("2:3T+pad", 3, 4),
    ("2:4T+pad", 3, 3),
    ("3:4T+pad", 3, 4),
    ("block2x1", 4, 2),
    ("block2x2", 4, 2),
    ("block2x2+pad", 3, 3),
    ("block2x1+pad", 3, 4),
    ("fan-in", 3, 3),
    ("channel", 3, 4),
]


@pytest.mark.parametrize(("text", "inputs", "outputs"), CASES)
def test_counts_cardinality_and_the_best_mask_against_all_masks_written_out(
    text: str, inputs: int, outputs: int
) -> None:
    structure, shape = parse_mask(text), ((inputs, outputs),)
    masks = written_out(text, inputs, outputs)
    assert set(structure.counts(shape)) == set(masks)
    generator = Generator().manual_seed(0)
    for nnz, those in masks.items():
        assert isclose(structure.log2_masks(shape, nnz), log2(len(those)), rel_tol=1e-12, abs_tol=1e-12)
        every = torch.tensor(those)
        for _ in range(3):
            scores = torch.randint(0, 9, (outputs, inputs), generator=generator).float()
            best = choose(structure, scores, nnz, "exact")
            assert tuple(map(tuple, best.int().tolist())) in those
            assert (scores * best).sum() == (scores * every).sum((1, 2)).max()
        assert (
            tuple(map(tuple, random_mask(structure, (outputs, inputs), nnz, generator).int().tolist()))
            in those
        )


@pytest.mark.parametrize(("text", "inputs", "outputs"), [case for case in CASES if case[1] * case[2] <= 9])
def test_the_constraint_lets_those_masks_pass_and_no_other(text: str, inputs: int, outputs: int) -> None:
    structure = parse_mask(text)
    for bits in product((False, True), repeat=inputs * outputs):
        mask = torch.tensor(bits).view(outputs, inputs)
        assert holds(structure, mask) == allowed(text, tuple(map(tuple, mask.int().tolist())))


def test_a_transposable_tile_of_four_has_ninety_masks_and_the_best_is_the_best_of_them() -> None:
    """90 at 2:4 (arXiv 2102.08124); what is short has one in every row and column, 24 masks."""
    masks = written_out("2:4T", 4, 4)
    assert {nnz: len(those) for nnz, those in masks.items()} == {8: 90, 4: 24}
    structure = parse_mask("2:4T")
    assert isclose(2 ** structure.log2_masks(((4, 4),), 8), 90)
    assert isclose(2 ** structure.log2_masks(((4, 4),), 4), 24)
    drawn = random_mask(structure, (4, 6000), 12000, Generator().manual_seed(0)).view(4, 1500, 4)
    assert len(drawn.transpose(0, 1).reshape(1500, 16).unique(dim=0)) == 90, "some mask is never drawn"


# --- random shapes and scores -------------------------------------------------------------------------


STRUCTURES = (
    "unstructured", "2:4", "1:8", "2:4T", "2:8T", "4:8T", "3:6T", "2:4+pad", "2:8T+pad", "4:8T+pad", "8:16T+pad",
    "block4x4+pad", "block1x8+pad", "block2x3", "fan-in", "channel",
)  # fmt: skip


@pytest.mark.parametrize("text", ["3:4", "2:4T", "2:8T"])
def test_sums_that_overflow_leave_the_count_exact(text: str) -> None:
    structure = parse_mask(text)
    nnz = structure.counts(((16, 16),))[-2]  # one short group or tile
    mask = choose(structure, torch.full((16, 16), 3e38), nnz)
    assert int(mask.sum()) == nnz
    assert holds(structure, mask)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(STRUCTURES), st.integers(1, 40), st.integers(1, 40), st.sampled_from(KINDS), st.integers(0, 99), st.data()
)  # fmt: skip
def test_every_chosen_mask_satisfies_its_structure_exactly(
    text: str, inputs: int, outputs: int, kind: str, seed: int, data: st.DataObject
) -> None:
    structure = parse_mask(text)
    to_inputs, to_outputs = structure.multiples
    inputs, outputs = -(-inputs // to_inputs) * to_inputs, -(-outputs // to_outputs) * to_outputs
    counts = structure.counts(((inputs, outputs),))
    nnz = counts[data.draw(st.sampled_from((-1, 0, len(counts) // 2, max(0, len(counts) - 2))))]
    scores = scores_of(kind, (outputs, inputs), seed)
    mask = choose(structure, scores, nnz)
    assert mask.dtype is torch.bool
    assert int(mask.sum()) == nnz
    assert holds(structure, mask)
    assert torch.equal(mask, choose(structure, scores.clone(), nnz)), "the same scores, another mask"
    drawn = random_mask(structure, (outputs, inputs), nnz, Generator().manual_seed(seed))
    assert int(drawn.sum()) == nnz
    assert holds(structure, drawn)


@pytest.mark.parametrize("text", ["unstructured", "2:4T", "1:2T", "channel", "block4x4"])
def test_what_keeps_transposed_keeps_transposed(text: str) -> None:
    structure = parse_mask(text)
    assert structure.keeps_transposed
    counts = structure.counts(((16, 16),))
    for seed in range(5):
        mask = random_mask(structure, (16, 16), counts[len(counts) // 2], Generator().manual_seed(seed))
        if text == "channel":  # whole inputs are left: a smaller dense matrix
            assert all(len(set(column)) == 1 for column in mask.T.T.tolist())
        else:
            assert holds(structure, mask.T)


@pytest.mark.parametrize("text", ["2:4", "1:8", "fan-in", "2:4+pad"])
def test_what_does_not_keep_transposed_does_not(text: str) -> None:
    structure = parse_mask(text)
    assert not structure.keeps_transposed
    nnz = structure.counts(((16, 16),))[-1] if text != "fan-in" else 64
    assert not all(
        holds(structure, random_mask(structure, (16, 16), nnz, Generator().manual_seed(seed)).T)
        for seed in range(5)
    )


# --- what cannot be -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "nnz", "says"),
    [("2:4", (4, 8), 17, "the nearest is 16"), ("fan-in", (4, 8), 15, "the nearest is 12"), ("channel", (4, 8), 3, "the nearest is 0")],
)  # fmt: skip
def test_a_count_that_no_mask_has_is_refused(text: str, shape: tuple[int, ...], nnz: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        choose(parse_mask(text), torch.rand(shape), nnz)


def test_channels_of_factors_are_refused_because_theirs_differ() -> None:
    with pytest.raises(InfeasibleError, match="the same number of inputs, but these have 4 and 8"):
        parse_mask("channel").counts(((4, 8), (8, 4)))


@pytest.mark.parametrize("text", ["2:4", "2:4T", "block4x4"])
def test_what_does_not_divide_is_refused_and_padding_named(text: str) -> None:
    with pytest.raises(InfeasibleError, match=rf"{text}\+pad"):
        parse_mask(text).counts(((30, 30),))
    assert parse_mask(f"{text}+pad").counts(((30, 30),))


@pytest.mark.parametrize("structure", [NM(2, 4, padded=True), NM(2, 8, True, True), Block(4, 4, padded=True)])
def test_padding_changes_nothing_where_shapes_divide(structure: MaskStructure) -> None:
    bare = parse_mask(str(structure).removesuffix("+pad"))
    assert parse_mask(str(structure)) == structure
    assert structure.counts(((32, 64),)) == bare.counts(((32, 64),))
    nnz = bare.counts(((32, 64),))[-2]
    assert structure.log2_masks(((32, 64),), nnz) == bare.log2_masks(((32, 64),), nnz)
    scores = scores_of("normal", (64, 32), 3)
    assert torch.equal(choose(structure, scores, nnz), choose(bare, scores, nnz))


# --- mistakes of published code -----------------------------------------------------------------------


def test_masks_are_chosen_by_magnitudes_and_never_by_sorting_a_mask() -> None:
    """Sorting a boolean mask in place of magnitudes keeps whatever comes first."""
    weight = torch.tensor([[0.1, 4.0, 0.2, 3.0]])
    present = torch.tensor([[True, True, True, True]])
    wrong = torch.zeros(4).scatter(0, present[0].int().argsort(descending=True, stable=True)[:2], 1).bool()
    assert wrong.tolist() == [True, True, False, False]
    assert choose(NM(2, 4), weight.abs(), 2).tolist() == [[False, True, False, True]]
    for structure in ("2:4", "2:4T", "fan-in", "unstructured"):
        with pytest.raises(InputError, match=r"booleans; pass magnitudes"):
            choose(parse_mask(structure), present.repeat(4, 1), 8)


@pytest.mark.parametrize(
    ("kernel", "module"), [((2, 2), nn.Conv2d), ((4,), nn.Conv1d), ((1, 2, 2), nn.Conv3d)]
)
def test_groups_run_along_channels_and_not_along_the_kernel(
    kernel: tuple[int, ...], module: type[nn.Module]
) -> None:
    """Channels first, a group of four is the kernel of one channel; channels last, four channels at one position."""
    convolution = module(4, 1, kernel, bias=False)
    values = torch.tensor(  # (channels, positions): large in the first two channels, whatever the position
        [[9.0, 8.0, 7.0, 6.0], [9.5, 8.5, 7.5, 6.5], [1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]]
    )
    with torch.no_grad():
        convolution.weight.copy_(values.view_as(convolution.weight))  # type: ignore[arg-type]
    convolution.register_buffer("weight_mask", torch.ones_like(convolution.weight, dtype=torch.bool))  # type: ignore[arg-type]
    weight = MaskedWeight("weight", convolution, "weight")
    last = from_matrix(choose(NM(2, 4), to_matrix(convolution.weight.detach().abs(), weight), 8), weight)
    first = choose(NM(2, 4), convolution.weight.detach().abs().reshape(1, -1), 8).view_as(last)
    assert not torch.equal(last, first)
    assert last.view(4, 4).tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert (first.view(4, 4).sum(1) == 2).all()
    assert (last.view(4, 4).sum(0) == 2).all()
