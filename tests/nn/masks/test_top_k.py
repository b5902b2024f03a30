"""Exact selection: the right number, the largest, and the first among equals."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iftplan.nn.masks import top_k
from iftplan.nn.masks.top_k import excluding, top_k_mask

few = st.integers(0, 3).map(float)  # many ties
finite = st.floats(0, 2.0**100, width=32)


def tensors(elements: st.SearchStrategy[float]) -> st.SearchStrategy[torch.Tensor]:
    return st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(
        lambda shape: arrays("float32", shape, elements=elements).map(torch.from_numpy)
    )


@pytest.mark.parametrize("elements", [few, finite], ids=["ties", "floats"])
def test_what_is_chosen_is_what_a_stable_sort_puts_first(elements: st.SearchStrategy[float]) -> None:
    @given(tensors(elements), st.data())
    def check(scores: torch.Tensor, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, scores.shape[1]))
        first = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        expected = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, first, True)
        assert torch.equal(top_k_mask(scores, count), expected)

    check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, float("inf")])
def test_equal_scores_are_taken_from_the_front(dtype: torch.dtype, value: float) -> None:
    chosen = top_k_mask(torch.full((2, 6), value, dtype=dtype), 2)
    assert chosen.tolist() == [[True, True, False, False, False, False]] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_have_ties_and_counts_are_exact_all_the_same(dtype: torch.dtype) -> None:
    scores = torch.rand(1, 10_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert len(scores.unique()) < 5000
    for count in (1, 777, 5000, 9999):
        assert int(top_k_mask(scores, count).sum()) == count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("spread", ["normal", "mostly zero", "few values", "equal"])
def test_long_rows_are_counted_and_come_out_as_sorted(dtype: torch.dtype, spread: str) -> None:
    draw = torch.Generator().manual_seed(1)
    scores = torch.randn(1, 40_000, generator=draw).abs()
    match spread:
        case "mostly zero":
            scores *= torch.rand(scores.shape, generator=draw) < 0.1
        case "few values":
            scores = (scores * 2).round()
        case "equal":
            scores = torch.full_like(scores, 0.5)
    excluded = torch.rand(scores.shape, generator=draw) < 0.5
    scores = excluding(scores.to(dtype), excluded)
    scores[0, 7] = torch.inf
    order = scores.argsort(dim=1, descending=True, stable=True)
    for count in (1, 2, 500, 5000, int((scores >= 0).sum()), 39_999):
        expected = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :count], True)
        assert torch.equal(top_k_mask(scores, count), expected), count


SHAPES = {
    "even": lambda r: r,
    "all alike": torch.zeros_like,
    "few values": lambda r: (8 * r).floor(),
    "mostly excluded": lambda r: excluding(r, r < 0.97),
    "ascending": lambda r: r.sort().values,
    "large ones between the sampled ones": lambda r: r + (torch.arange(len(r)) % 16 == 5),
    "large ones at the sampled places": lambda r: r + (torch.arange(len(r)) % 16 == 0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_guessed_threshold_changes_nothing(shape: str, dtype: torch.dtype) -> None:
    """A million scores and more, of which few are chosen: what is likely is looked at alone, or the guess is dropped."""
    numbers = torch.rand(16 * 65_536 + 7, generator=torch.Generator().manual_seed(3))
    scores = SHAPES[shape](numbers).to(dtype)
    order = scores.argsort(descending=True, stable=True)
    for count in (1, 1000, len(scores) // 40, len(scores) // 9):
        chosen = top_k_mask(scores.view(1, -1), count).view(-1)
        assert torch.equal(chosen.nonzero().view(-1), order[:count].sort().values)


def test_guesses_are_close_where_scores_are_spread_and_dropped_where_a_sample_misleads() -> None:
    numbers = torch.rand(16 * 65_536 + 7, generator=torch.Generator().manual_seed(3))
    count = len(numbers) // 40
    found = top_k._likely(SHAPES["even"](numbers), count)
    assert found is not None and count <= len(found) < 1.2 * count
    assert top_k._likely(SHAPES["all alike"](numbers), count) is None
    assert top_k._likely(SHAPES["large ones at the sampled places"](numbers), len(numbers) // 9) is None


def test_rows_are_chosen_by_themselves() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [9.0, 8.0, 8.0]])
    assert top_k_mask(scores, 2).tolist() == [[False, True, True], [True, True, False]]


@given(tensors(few), st.data())
def test_what_is_excluded_is_never_chosen_before_anything_else(
    scores: torch.Tensor, data: st.DataObject
) -> None:
    excluded = data.draw(arrays("bool", tuple(scores.shape)).map(torch.from_numpy))
    room = int((~excluded).sum(1).min())
    count = data.draw(st.integers(0, room))
    assert not (top_k_mask(excluding(scores, excluded), count) & excluded).any()


@pytest.mark.parametrize("count", [-1, 4])
def test_more_than_there_is_cannot_be_chosen(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} of 3"):
        top_k_mask(torch.ones(1, 3), count)
