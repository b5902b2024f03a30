"""Dimensions made of smaller ones: replicas commute with views, concatenations and splits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as pairs
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iftplan.nn.warmstart.replicas import (
    Channels,
    UnmatchedError,
    concatenation,
    copies,
    cut,
    factors,
    product,
    replicate,
    unify,
)

SIZES = st.tuples(st.integers(2, 4), st.integers(0, 4)).map(lambda s: (s[0], s[0] + s[1]))


class Draw:
    """Another random choice for every leaf, always the same for one."""

    def __init__(self) -> None:
        self.drawn: dict[int, tuple[Channels, Tensor]] = {}
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, leaf: Channels) -> Tensor:
        dense, wide = leaf.size
        if id(leaf) not in self.drawn:
            chosen = torch.randint(dense, (wide,), generator=self.generator)
            self.drawn[id(leaf)] = (leaf, chosen)
        return self.drawn[id(leaf)][1]


@given(st.lists(SIZES, min_size=1, max_size=4))
def test_replicas_commute_with_a_view(sizes: list[tuple[int, int]]) -> None:
    whole = Channels((prod(s[0] for s in sizes), prod(s[1] for s in sizes)))
    parts, draw = factors(whole, sizes), Draw()
    dense = torch.arange(whole.size[0])
    wide = dense[replicate(whole, draw)].reshape([s[1] for s in sizes])
    expected = dense.reshape([s[0] for s in sizes])
    for axis, part in enumerate(parts):
        expected = expected.index_select(axis, replicate(part, draw))
    assert torch.equal(wide, expected)


@given(st.lists(SIZES, min_size=2, max_size=4))
def test_replicas_commute_with_a_split(sizes: list[tuple[int, int]]) -> None:
    whole = Channels((sum(s[0] for s in sizes), sum(s[1] for s in sizes)))
    pieces, draw = cut(whole, sizes), Draw()
    dense = torch.arange(whole.size[0])
    wide = dense[replicate(whole, draw)].split([s[1] for s in sizes])
    for piece, part, found in zip(pieces, dense.split([s[0] for s in sizes]), wide, strict=True):
        assert torch.equal(found, part[replicate(piece, draw)])


@given(st.lists(SIZES, min_size=2, max_size=3), st.lists(SIZES, min_size=2, max_size=3), st.booleans())
def test_dimensions_that_meet_take_the_same_replicas(
    left: list[tuple[int, int]], right: list[tuple[int, int]], summed: bool
) -> None:
    build = concatenation if summed else product
    one = build([Channels(size) for size in left])
    other = Channels(one.size)
    assert unify(other, one).root is one.root
    draw = Draw()
    assert torch.equal(replicate(one, draw), replicate(other, draw))
    inner = factors(product([other, Channels(right[0])]), [one.size, right[0]])[0]
    assert torch.equal(replicate(inner, draw), replicate(one, draw))


def test_halves_viewed_as_two_are_the_same_channels() -> None:
    """ShuffleNet: two branches joined, then interleaved by a view."""
    kept, changed = Channels((6, 9)), Channels((6, 9))
    two, half = factors(concatenation([kept, changed]), [(2, 2), (6, 9)])
    assert kept.root is changed.root is half.root
    draw = Draw()
    mixed = replicate(product([half, two]), draw).reshape(9, 2)
    assert torch.equal(mixed // 2, replicate(half, draw)[:, None].expand(9, 2))
    assert torch.equal(mixed % 2, torch.tensor([0, 1]).expand(9, 2))


def test_one_refines_the_other() -> None:
    """Heads times head size on one side, two halves of them on the other."""
    fused = product([Channels((3, 3)), Channels((4, 6)), Channels((5, 5))])
    q, k, v = (Channels((20, 30)) for _ in range(3))
    unify(fused, concatenation([q, k, v]))
    draw = Draw()
    assert torch.equal(replicate(q, draw), replicate(k, draw))
    assert torch.equal(replicate(q, draw), replicate(v, draw))
    heads = replicate(q, draw).reshape(6, 5)
    assert torch.equal(heads % 5, torch.arange(5).expand(6, 5))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: unify(Channels((4, 6)), Channels((4, 8))), "4→6 channels meet 4→8"),
        (lambda: factors(Channels((4, 6)), [(2, 2), (2, 4)]), "4→6 channels are not 2 times 2→4"),
        (lambda: cut(product([Channels((6, 9)), Channels((2, 2))]), [(6, 9), (6, 9)]), "break up"),
        (lambda: factors(Channels((6, 6)), [(2, 3), (3, 2)]), "stays"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[..., Any], said: str) -> None:
    with pytest.raises(UnmatchedError, match=said):
        make()


def test_copies_are_counted() -> None:
    assert copies(torch.tensor([0, 1, 2, 0, 2])).tolist() == [2, 1, 2, 2, 2]


def test_products_and_sums_are_flat() -> None:
    sizes = list(pairs((2, 3), (4, 5)))
    leaves = [Channels(size) for size in sizes]
    assert product([product(leaves[:2]), product(leaves[2:])]).parts == tuple(leaves)
    assert concatenation([concatenation(leaves[:2]), *leaves[2:]]).parts == tuple(leaves)
