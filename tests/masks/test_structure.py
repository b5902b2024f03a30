"""Mask structures: what they keep, how many there are (written out one by one), and what does not fit."""

import re
from collections.abc import Callable
from itertools import combinations, product
from math import comb, factorial, isclose, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import NM, Block, ConstantFanIn, MaskStructure, Unstructured, parse_mask


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        ("unstructured", Unstructured()),
        ("fan-in", ConstantFanIn()),
        ("2:4", NM(2, 4)),
        ("2:8T", NM(2, 8, transposable=True)),
        ("1:1", NM(1, 1)),
        ("64:64", NM(64, 64)),
        ("block4x4", Block(4, 4)),
        ("block1x16", Block(1, 16)),
    ],
)
def test_notation_of_masks_and_back(text: str, structure: MaskStructure) -> None:
    assert parse_mask(text) == structure
    assert str(structure) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("5:4", "Did you mean 4:5?"),
        ("0:4", "The nearest is 1:4"),
        ("2:65", "M at most 64. The nearest is 2:64"),
        ("0:0", "The nearest is 1:1"),
        ("2:4x", "structures are unstructured, 2:4, 2:4T"),
        ("-1:4", "structures are"),
        ("block0x4", "structures are"),
        ("block4", "block4x4"),
        ("fanin", "fan-in"),
        ("", "structures are"),
    ],
)
def test_a_mask_that_cannot_be_read_says_what_was_given_and_what_can_be(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_mask(text)
    assert repr(text) in str(caught.value)
    assert says in str(caught.value)


Cells = set[tuple[int, int]]
Allowed = Callable[[Cells], bool]


def written_out(rows: int, columns: int, nnz: int, allowed: Allowed) -> int:
    """How many masks of a rows×columns weight (inputs × outputs) with nnz weights are allowed, by listing them."""
    cells = list(product(range(rows), range(columns)))
    return sum(allowed(set(kept)) for kept in combinations(cells, nnz))


def column_groups(of: int) -> Callable[[Cells, int, int], list[list[bool]]]:
    """Groups of `of` inputs of one output."""
    return lambda kept, rows, columns: [
        [(r, c) in kept for r in range(start, start + of)]
        for c in range(columns)
        for start in range(0, rows, of)
    ]


def n_of_m(mask: NM, rows: int, columns: int) -> Allowed:
    def allowed(kept: Cells) -> bool:
        return all(sum(group) == mask.kept for group in column_groups(mask.of)(kept, rows, columns))

    return allowed


def transposable(mask: NM, rows: int, columns: int) -> Allowed:
    def allowed(kept: Cells) -> bool:
        along = [
            sum((r, c) in kept for c in range(start, start + mask.of))
            for r in range(rows)
            for start in range(0, columns, mask.of)
        ]
        return n_of_m(mask, rows, columns)(kept) and all(n == mask.kept for n in along)

    return allowed


def blocks(mask: Block, rows: int, columns: int) -> Allowed:
    def allowed(kept: Cells) -> bool:
        return all(
            len({(r // mask.height * mask.height + i, c // mask.width * mask.width + j) in kept
                 for i in range(mask.height) for j in range(mask.width)}) == 1
            for r in range(rows) for c in range(columns)
        )  # fmt: skip

    return allowed


def constant_fan_in(mask: MaskStructure, rows: int, columns: int) -> Allowed:
    return lambda kept: len({sum((r, c) in kept for r in range(rows)) for c in range(columns)}) == 1


@pytest.mark.parametrize(
    ("text", "rows", "columns", "nnz", "rule"),
    [
        ("unstructured", 3, 4, 5, lambda mask, rows, columns: lambda kept: True),
        ("2:4", 4, 4, 8, n_of_m),
        ("1:3", 6, 2, 4, n_of_m),
        ("2:3", 3, 4, 8, n_of_m),
        ("2:4T", 4, 4, 8, transposable),
        ("1:2T", 4, 4, 8, transposable),
        ("1:3T", 3, 6, 6, transposable),
        ("block2x2", 4, 4, 8, blocks),
        ("block1x2", 3, 4, 6, blocks),
        ("block3x1", 3, 5, 6, blocks),
        ("fan-in", 4, 3, 6, constant_fan_in),
        ("fan-in", 3, 4, 8, constant_fan_in),
    ],
)
def test_masks_counted_are_masks_written_out(
    text: str, rows: int, columns: int, nnz: int, rule: Callable[..., Allowed]
) -> None:
    mask = parse_mask(text)
    assert mask.close(((rows, columns),), nnz) == nnz
    masks = written_out(rows, columns, nnz, rule(mask, rows, columns))
    assert masks
    assert isclose(mask.log2_masks(((rows, columns),), nnz), log2(masks), rel_tol=1e-12, abs_tol=1e-12)


def test_published_counts_of_one_tile() -> None:
    """A 4×4 tile has 1296 masks at 2:4 and 90 at transposable 2:4 (arXiv 2102.08124)."""
    tile = ((4, 4),)
    assert 2 ** NM(2, 4).log2_masks(tile, 8) == pytest.approx(1296, rel=1e-12)
    assert 2 ** NM(2, 4, transposable=True).log2_masks(tile, 8) == pytest.approx(90, rel=1e-12)
    eight = ((8, 8),)
    assert 2 ** NM(1, 8, transposable=True).log2_masks(eight, 8) == pytest.approx(factorial(8), rel=1e-12)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.integers(1, 6))
def test_matrices_of_a_layer_count_together(rows: int, columns: int, kept: int, more: int) -> None:
    of = kept + more
    matrices = ((rows * of, columns), (of, rows))
    weights = rows * of * columns + of * rows
    mask = NM(kept, of)
    assert mask.close(matrices, weights) * of == weights * kept
    expected = (weights // of) * log2(comb(of, kept))
    assert isclose(
        mask.log2_masks(matrices, mask.close(matrices, weights)), expected, rel_tol=1e-12, abs_tol=1e-12
    )


matrices = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3).map(tuple)


@given(matrices, st.integers(0, 500), st.sampled_from(("unstructured", "fan-in", "block1x1")))
def test_what_is_kept_is_the_most_within_the_budget(
    shapes: tuple[tuple[int, int], ...], budget: int, text: str
) -> None:
    mask = parse_mask(text)
    nnz = mask.close(shapes, budget)
    whole = sum(m * n for m, n in shapes)
    step = sum(n for _, n in shapes) if text == "fan-in" else 1
    most = min(m for m, _ in shapes) * step if text == "fan-in" else whole
    assert nnz % step == 0
    assert 0 <= nnz <= min(budget, most)
    assert nnz == most or budget - nnz < step
    assert mask.log2_masks(shapes, nnz) >= 0


@given(matrices)
def test_a_structure_without_weights_has_one_mask(shapes: tuple[tuple[int, int], ...]) -> None:
    for mask in (Unstructured(), ConstantFanIn(), Block(1, 1)):
        assert mask.log2_masks(shapes, 0) == 0
        assert mask.close((), 0) == 0


@pytest.mark.parametrize(
    ("text", "shape", "says"),
    [
        ("2:4", (30, 8), "inputs divisible by 4, but there are 30; the nearest is 32"),
        ("2:4T", (32, 30), "outputs divisible by 4, but there are 30; the nearest is 32"),
        ("2:4T", (30, 32), "inputs divisible by 4, but there are 30"),
        ("1:7", (8, 8), "the nearest is 14"),
        (
            "block4x4",
            (30, 8),
            "30×8 weight (inputs × outputs) cannot be divided into block4x4 blocks; the nearest size that can is 32×8",
        ),
        ("block1x3", (5, 8), "the nearest size that can is 5×9"),
    ],
)
def test_a_weight_that_a_pattern_does_not_tile_is_refused_with_the_nearest_that_it_does(
    text: str, shape: tuple[int, int], says: str
) -> None:
    with pytest.raises(InfeasibleError, match=re.escape(says)):
        parse_mask(text).close((shape,), 100)


def test_rows_of_a_pattern_may_have_any_number_of_outputs() -> None:
    assert NM(2, 4).counts(((32, 30),)) == range(240, 481)
