"""Attention patterns: closed forms against masks written out, what is chosen by scores, and notations that come back."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iftplan.base.errors import InputError
from iftplan.masks import AttentionPattern, parse_attention

Rule = Callable[[int, int], bool]

sizes = st.integers(1, 9)
MAP = ("101", "110", "011", "111")


def parts(size: int, window: int, step: int) -> dict[str, Rule]:
    """Each part of the notation, and the rule for query i and key j that it stands for."""
    return {
        "full": lambda i, j: True,
        "causal": lambda i, j: j <= i,
        f"window:{window}": lambda i, j: abs(i - j) < window,
        f"block:{size}": lambda i, j: i // size == j // size,
        f"strided:{step}": lambda i, j: i % step == j % step,
    }


@given(st.integers(1, 24), st.integers(1, 24), sizes, sizes, sizes, st.data())
def test_the_closed_form_counts_the_mask(
    queries: int, keys: int, size: int, window: int, step: int, data: st.DataObject
) -> None:
    known = parts(size, window, step)
    chosen = data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4))
    pattern = parse_attention("+".join(chosen))
    seen = [[all(known[part](i, j) for part in chosen) for j in range(keys)] for i in range(queries)]
    assert [[pattern.keeps(i, j) for j in range(keys)] for i in range(queries)] == seen
    assert pattern.pairs(queries, keys) == pattern.score_pairs(queries, keys) == sum(map(sum, seen))
    kept = data.draw(st.integers(1, 9))
    top = pattern & parse_attention(f"top-k:{kept}")
    assert top.pairs(queries, keys) == sum(min(kept, sum(row)) for row in seen)
    assert top.score_pairs(queries, keys) == sum(map(sum, seen))  # a selection by scores needs all of them
    assert parse_attention(str(top)) == top


@given(st.integers(1, 12), st.integers(1, 9), st.sampled_from(("full", "causal", "window:1", "window:4")))
def test_a_map_of_blocks_keeps_its_blocks(queries: int, keys: int, other: str) -> None:
    pattern = parse_attention(f"blocks:3:{'/'.join(MAP)}") & parse_attention(other)
    rule = parts(1, int(other.partition(":")[2] or 1), 1)[other]
    expected = sum(MAP[i // 3][j // 3] == "1" and rule(i, j) for i in range(queries) for j in range(keys))
    assert pattern.pairs(queries, keys) == expected
    assert parse_attention(str(pattern)) == pattern
    chosen = parse_attention(f"top-k:4+blocks:3:{'/'.join(MAP)}")
    rows = (sum(MAP[i // 3][j // 3] == "1" for j in range(keys)) for i in range(queries))
    assert chosen.pairs(queries, keys) == sum(min(4, row) for row in rows)


@given(
    st.integers(1, 24),
    st.integers(1, 24),
    sizes,
    st.sampled_from(("full", "causal", "window:5", "window:5+causal", "window:2")),
)
def test_pages_cost_two_products_each(queries: int, keys: int, page: int, rule: str) -> None:
    pattern, seen = parse_attention(f"top-k:{2 * page}/{page}+{rule}"), parse_attention(rule)
    rows = [[j for j in range(keys) if seen.keeps(i, j)] for i in range(queries)]
    pages = sum(len({j // page for j in row}) for row in rows)
    kept = sum(min(2 * page, len(row)) for row in rows)
    assert pattern.pairs(queries, keys) == kept
    assert pattern.selection_pairs(queries, keys) == 2 * pages
    assert pattern.score_pairs(queries, keys) == kept + 2 * pages


def test_quest_chooses_pages_at_4_lds_over_page_flops_a_token() -> None:
    # arXiv 2504.17768: importance 4·L·d·S/page FLOPs a token, so 2·S/page products of d channels for one layer
    chosen = parse_attention("top-k:1024/16").selection_pairs(1, 131072)
    assert chosen == ceil(2 * 131072 / 16)


def test_causal_attention_of_a_long_context_is_counted_at_once() -> None:
    assert parse_attention("causal").pairs(10**9, 10**9) == 10**9 * (10**9 + 1) // 2
    window = 4096 * 10**9 - 4096 * 4095 // 2
    assert parse_attention("window:4096+causal").pairs(10**9, 10**9) == window
    assert parse_attention("top-k:4096+causal").pairs(10**9, 10**9) == window
    assert parse_attention("top-k:4096/16+causal+window:4096").pairs(10**9, 10**9) == window
    assert parse_attention("strided:1000000").pairs(10**9, 10**9) == 10**12


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (" Causal+Window:256 ", "window:256+causal"),
        ("window:8+window:4", "window:4"),
        ("full", "full"),
        ("strided:2+strided:3", "strided:6"),
        ("block:4+block:2", "block:2"),
        ("top-k:64/16+causal", "top-k:64/16+causal"),
    ],
)
def test_patterns_are_written_in_one_way(text: str, written: str) -> None:
    assert str(parse_attention(text)) == written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("windows:4", "Patterns are full, causal"),
        ("window:0", "Patterns are"),
        ("window", "Patterns are"),
        ("", "Patterns are"),
        ("blocks:4:10/1", "Patterns are"),
        ("top-k:20/16", r"The nearest is top-k:16/16"),
        ("block:4+block:6", "sizes of which one divides the other"),
        ("top-k:4+top-k:8", "Give one of them"),
    ],
)
def test_what_is_no_pattern_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_attention(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("blocks:2:10/01", "2×2 blocks of 2 is too small for 6 queries and 6 keys, which need 3×3"),
        ("blocks:2:100/010/001+strided:2", "combines with causal"),
        ("blocks:2:100/010/001+top-k:2+causal", "selected from whole blocks"),
        ("top-k:4/2+strided:2", "pages are of neighbouring keys"),
    ],
)
def test_what_cannot_be_counted_is_refused(text: str, told: str) -> None:
    pattern: AttentionPattern = parse_attention(text)
    with pytest.raises(InputError, match=told):
        pattern.selection_pairs(6, 6)
