"""Every algorithm's update as a function of values: tables worked out by hand, switches, and what always holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from iftplan.base.errors import InputError
from iftplan.nn.masking.algorithms.at_start.saliency import Saliency
from iftplan.nn.masking.algorithms.exchange.drop_grow import drop_grow
from iftplan.nn.masking.algorithms.exchange.rigl import RigL
from iftplan.nn.masking.algorithms.exchange.set import SET
from iftplan.nn.masking.algorithms.pruning.gradual import Gradual
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.layer import Layer
from iftplan.runs.schedules import Constant, Cosine, Linear, Schedule, Updates
from tests.support.models.hand_layers import layer, ones
from tests.support.runs.mask_update import GRADIENT, MASK, TABLE, WEIGHTS

#             0    1    2    3    4    5    6    7    8    9


@pytest.mark.parametrize(("fraction", "regrow", "mask", "grown"), TABLE)
def test_drop_and_grow_by_hand(fraction: float, regrow: bool, mask: list[int], grown: list[int]) -> None:
    change = drop_grow(layer(WEIGHTS, MASK), torch.tensor([GRADIENT]), fraction, regrow=regrow)
    assert (ones(change.mask), ones(change.grown)) == (mask, grown)


def test_a_whole_product_is_dropped_whole() -> None:
    # 100·.29 is 28.999999999999996 in floating point
    weights = [float(i + 1) for i in range(100)] + [0.0] * 100
    change = drop_grow(
        layer(weights, [1] * 100 + [0] * 100), torch.arange(200.0).view(1, -1), 0.29, regrow=False
    )
    assert len(ones(change.grown)) == 29


@pytest.mark.parametrize("fraction", [-0.5, 1.5])
def test_a_fraction_outside_is_taken_to_its_end(fraction: float) -> None:
    change = drop_grow(layer(WEIGHTS, MASK), torch.tensor([GRADIENT]), fraction)
    assert len(ones(change.grown)) == (5 if fraction > 1 else 0)
    assert len(ones(change.mask)) == 5


def test_gradients_of_zero_grow_no_active_weight() -> None:
    """Facts of published code: zero-gradient ties re-grew active weights, and density leaked away."""
    change = drop_grow(layer([0, 0, 3, 2, 1], [0, 0, 1, 1, 1]), torch.zeros(1, 5), 0.4, regrow=False)
    assert ones(change.mask) == [0, 2, 3]  # ties to the first, and three as before
    assert ones(_published_growth(layer([3, 2, 1, 0, 0], [1, 1, 1, 0, 0]), 1)) == [0, 1]  # two of three


def _published_growth(x: Layer, dropped: int) -> Tensor:
    """As seen: active weights' scores are set to 0 and the best of all grow, so that zeros tie with them."""
    kept = torch.zeros_like(x.mask)
    kept[0, x.magnitude[0].argsort(descending=True)[: x.active - dropped]] = True
    scores = torch.zeros_like(x.magnitude) * ~kept
    grown = torch.zeros_like(x.mask)
    grown[0, scores[0].argsort(descending=True, stable=True)[:dropped]] = True
    return kept | grown


def test_equal_weights_and_equal_gradients_are_told_apart_by_place() -> None:
    change = drop_grow(layer([1] * 6, [1, 1, 1, 1, 0, 0]), torch.ones(1, 6), 0.5, regrow=False)
    assert ones(change.mask) == [0, 1, 4, 5]
    back = drop_grow(layer([1] * 6, [1, 1, 1, 1, 0, 0]), torch.ones(1, 6), 0.5, regrow=True)
    assert (ones(back.mask), ones(back.grown)) == ([0, 1, 2, 3], [2, 3])


@pytest.mark.parametrize(
    ("mask", "regrow", "expected"),
    [
        ([1, 1, 1, 1], True, [0, 1, 2, 3]),  # full: all that is dropped comes back
        ([1, 1, 1, 1], False, [0, 1, 2, 3]),  # full, and nothing else could grow: nothing is dropped
        ([0, 0, 0, 0], True, []),
        ([0, 0, 0, 0], False, []),
        ([1, 1, 1, 0], False, [2, 1, 3]),  # two to grow and room for one: the larger of the two dropped stays
    ],
)
def test_full_empty_and_narrow(mask: list[int], regrow: bool, expected: list[int]) -> None:
    change = drop_grow(layer([1, 2, 3, 0], mask), torch.tensor([[4.0, 3, 2, 1]]), 0.7, regrow=regrow)
    assert ones(change.mask) == sorted(expected)


def test_every_row_drops_and_grows_by_itself() -> None:
    two = layer(WEIGHTS + WEIGHTS[::-1], MASK + MASK[::-1], rows=2)
    change = drop_grow(two, torch.tensor([GRADIENT, GRADIENT[::-1]]), 0.4)
    assert change.mask[0].nonzero().view(-1).tolist() == [0, 1, 2, 4, 7]
    assert change.mask[1].flip(0).nonzero().view(-1).tolist() == [0, 1, 2, 4, 7]


def test_the_weight_chooses_what_is_dropped_and_a_row_grows_what_it_lost() -> None:
    """Groups of four with two, three and one: a quarter of six, ⌊1.5⌋ = 1, is the smallest of all, .1."""
    x = layer(
        [0.9, 0.8, 0.0, 0.0, 0.1, 0.2, 0.5, 0.0, 0.6, 0.0, 0.0, 0.0],
        [1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0],
        rows=3,
    )
    growth = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 0.0, 1.0], [9.0, 9.0, 9.0, 9.0]])
    one = drop_grow(x, growth, 0.25)
    assert one.mask.int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0]]
    # a half, three: .1, .2 and .5, and the row has but one other place; with regrow the gradients decide
    assert drop_grow(x, growth, 0.5, regrow=False).mask.int().tolist() == [
        [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0],
    ]  # fmt: skip
    growth[1] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert drop_grow(x, growth, 0.5).mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]


def test_groups_of_two_move_too() -> None:
    """Of two, ⌊2·.3⌋ is none: a group that chose for itself would never move."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]] * 50).bool()
    magnitude = torch.rand(50, 8, generator=generator) * mask
    x = Layer("weight", magnitude, None, None, mask, 2, generator)
    change = drop_grow(x, torch.rand(50, 8, generator=generator), 0.3)
    assert (change.mask.sum(1) == 2).all()
    assert int(change.grown.sum()) == 30  # of a hundred


numbers = st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0])


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    units = draw(st.integers(1, 12))
    size = draw(st.integers(0, units))
    mask = draw(st.permutations([1] * size + [0] * (units - size)))
    values = st.lists(numbers, min_size=units, max_size=units)
    magnitude = [w * m for w, m in zip(draw(values), mask, strict=True)]
    return layer(magnitude, mask, draw(values))


@given(layers(), st.floats(0, 1), st.booleans())
def test_what_always_holds_of_drop_and_grow(x: Layer, fraction: float, regrow: bool) -> None:
    assert x.gradient is not None
    change = drop_grow(x, x.gradient, fraction, regrow=regrow)
    kept = change.mask & ~change.grown
    dropped = x.mask & ~kept
    assert int(change.mask.sum()) == x.active
    assert not (kept & ~x.mask).any()
    room = x.units - x.active
    wanted = int(round(x.active * fraction, 6))
    assert int(change.grown.sum()) == (wanted if regrow else min(wanted, room))
    if kept.any() and dropped.any():
        assert x.magnitude[kept].min() >= x.magnitude[dropped].max()
    candidates = ~kept if regrow else ~x.mask
    assert not (change.grown & ~candidates).any()
    rest = candidates & ~change.grown
    if change.grown.any() and rest.any():
        assert x.gradient[change.grown].min() >= x.gradient[rest].max()


@pytest.mark.parametrize(
    ("fraction", "step", "dropped"),
    [
        (Cosine(0.3), 0, 30),
        (Cosine(0.3), 18_750, 25),  # ⌊100·.256066⌋
        (Cosine(0.3), 37_500, 15),
        (Cosine(0.3), 56_250, 4),  # ⌊100·.043934⌋
        (Cosine(0.3), 75_000, 0),
        (Constant(0.3), 56_250, 30),
        (Linear(0.3), 50_000, 10),
    ],
)
def test_the_schedule_says_how_much_rigl_drops(fraction: Schedule, step: int, dropped: int) -> None:
    x = layer(
        [float(i) for i in range(1, 101)] + [0.0] * 100,
        [1] * 100 + [0] * 100,
        [0.0] * 100 + [float(i) for i in range(100)],
    )
    (change,) = RigL(Updates(end=75_000), fraction).update([x], step)
    assert ones(x.mask & ~change.mask) == list(range(dropped))
    assert ones(change.grown) == list(range(200 - dropped, 200))


def test_rigl_may_be_told_not_to_grow_back() -> None:
    x = layer(WEIGHTS, MASK, GRADIENT)
    masks = [
        ones(RigL(Updates(end=10), Constant(0.4), regrow=regrow).update([x], 0)[0].mask)
        for regrow in (True, False)
    ]
    assert masks == [[0, 1, 2, 4, 7], [0, 2, 4, 7, 8]]


def test_set_grows_any_inactive_weight_equally_often() -> None:
    updates, counts = SET(Updates(end=10), Constant(0.4)), torch.zeros(10)
    x = layer(WEIGHTS, MASK)
    for seed in range(500):
        (change,) = updates.update([replace(x, generator=Generator().manual_seed(seed))], 0)
        assert int(change.mask.sum()) == 5
        assert ones(x.mask & change.mask) == [0, 2, 7]
        counts += change.grown.view(-1)
    assert counts[[0, 1, 2, 5, 7]].sum() == 0  # neither active ones nor those just dropped
    # five candidates, two grow: 200 of 500 each, within four standard deviations (√(500·.4·.6) = 11)
    assert ((counts[[3, 4, 6, 8, 9]] - 200).abs() < 44).all()


def test_set_may_grow_back_what_it_dropped() -> None:
    updates, x = SET(Updates(end=10), Constant(0.4), regrow=True), layer(WEIGHTS, MASK)
    changes = [updates.update([replace(x, generator=Generator().manual_seed(s))], 0)[0] for s in range(50)]
    assert any(change.grown[0, [1, 5]].any() for change in changes)


def test_set_draws_the_same_from_the_same_numbers() -> None:
    x = [layer(WEIGHTS, MASK) for _ in range(2)]
    first, second = (SET(Updates(end=10), Constant(0.4)).update([one], 0)[0] for one in x)
    assert torch.equal(first.mask, second.mask)


@pytest.mark.parametrize(
    ("step", "pruned"), [(0, 0), (250, 52_031), (500, 78_750), (750, 88_593), (1000, 90_000), (1100, 90_000)]
)
def test_gradual_pruning_follows_the_published_cubic(step: int, pruned: int) -> None:
    # s_f = .9: .5203125, .7875 and .8859375 after a quarter, a half and three quarters, in whole weights
    units = 100_000
    magnitude = torch.arange(units, dtype=torch.float32).view(1, -1)
    x = replace(
        layer([0.0], [1]), magnitude=magnitude, mask=torch.ones(1, units, dtype=torch.bool), target=10_000
    )
    (change,) = Gradual(Updates(end=1000, interval=250)).update([x], step)
    assert units - int(change.mask.sum()) == pruned
    assert change.mask[0, pruned:].all()  # the smallest go
    assert not change.grown.any()


def test_gradual_pruning_counts_exactly_where_floating_point_does_not() -> None:
    # (9/10)³·1000 is 729, and 729.0000000000001 in floating point
    algorithm = Gradual(Updates(end=10, interval=1))
    x = layer([1.0] * 1000, [1] * 1000, target=0)
    assert algorithm.units(x, 1) == 729


def test_gradual_pruning_begins_where_it_is_told_and_arrives_at_its_end() -> None:
    algorithm = Gradual(Updates(end=20, interval=7, begin=10))
    assert [step for step in range(30) if algorithm.due(step)] == [17, 20]
    x = layer([1.0] * 8, [1] * 8, target=0)
    assert [algorithm.units(x, step) for step in (0, 10, 15, 20)] == [8, 8, 1, 0]


def test_what_gradual_pruning_took_stays_away() -> None:
    x = layer([5.0, 0, 3, 1], [1, 0, 1, 1], target=1)
    (change,) = Gradual(Updates(end=10)).update([x], 5)
    assert not change.mask[0, 1]
    assert int(change.mask.sum()) == 2  # 1 + ⌈(4 - 1)/8⌉


def test_saliency_by_layer_and_over_all_layers() -> None:
    # |θ·g|, two layers of four; four weights stay
    first = layer([0] * 4, [1] * 4, target=2, saliency=[9, 8, 7, 1], name="a")
    second = layer([0] * 4, [1] * 4, target=2, saliency=[2, 6, 0, 3], name="b")
    by_layer = Saliency().update([first, second], 0)
    assert [ones(change.mask) for change in by_layer] == [[0, 1], [1, 3]]
    together = Saliency("global").update([first, second], 0)
    assert [ones(change.mask) for change in together] == [[0, 1, 2], [1]]


def test_ties_of_saliency_go_to_the_first_layer() -> None:
    a, b = (layer([0] * 3, [1] * 3, target=1, saliency=[1, 1, 1]) for _ in range(2))
    assert [ones(c.mask) for c in Saliency("global").update([a, b], 0)] == [[0, 1], []]


def test_saliency_comes_once_and_knows_two_scopes() -> None:
    assert [step for step in range(300) if Saliency().due(step)] == [0]
    with pytest.raises(InputError, match="scopes are layer and global"):
        Saliency("network")  # type: ignore[arg-type]


def test_static_masks_stay() -> None:
    assert not any(Static().due(step) for step in range(300))
    (change,) = Static().update([layer(WEIGHTS, MASK)], 0)
    assert ones(change.mask) == [0, 1, 2, 5, 7]


def test_short_rows_are_those_that_lose_least_in_bfloat16_too() -> None:
    """Losses of a hundredth, of which one more than their sum with 1 is no other number."""
    scores = torch.tensor([[0.0105, 0.9], [0.0101, 0.9], [0.0103, 0.9]], dtype=torch.bfloat16)
    whole = replace(layer([1.0] * 6, [1] * 6, rows=3, target=2), short=1)
    assert whole.largest(scores, 2).tolist() == [[True, True], [False, True], [True, True]]
    for scale in (1e-9, 1e-30):  # as scores of gradients are
        assert whole.largest(scores.double() * scale, 2).tolist() == whole.largest(scores, 2).tolist()
