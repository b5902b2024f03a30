"""Dense weights behind masked ones: every method and switch by hand, and what holds whoever looks, skips or resumes."""

from __future__ import annotations

import copy
from functools import cache
from math import copysign, exp
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import iftplan as ift
from iftplan import nn as inn
from iftplan.base.errors import InputError
from iftplan.nn import (
    CAST,
    SRSTE,
    STE,
    AdamS,
    MaskDecay,
    Masking,
    StructureDecay,
    TopKAST,
    Transposable,
    apply,
    layer_counts,
    masked_weights,
    sparsify,
    weights_by_layer,
)
from iftplan.nn.masking.algorithms.base import LatentAlgorithm
from iftplan.nn.masking.algorithms.dense_weights.structure_decay import frames, patterns
from iftplan.nn.masking.regimes.latents import leaky_weight, srste_gradient, through
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost

# One group of four, two of which stay: m = 1 0 1 0, so that forward passes see .9 0 .5 0.
DENSE = [0.9, -0.1, 0.5, 0.3]
FIRST, SECOND = [0.2, 0.8, -0.1, 0.4], [0.0, 0.5, 0.0, 0.1]


class Row(nn.Module):
    """Weights whose masks a method chooses at once; the one they come with says how many."""

    def __init__(self, values: list[float], kept: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([values]))
        mask = torch.arange(len(values)) < kept
        self.register_buffer("weight_mask", mask.view(1, -1))


def begun(
    algorithm: LatentAlgorithm, structure: str = "2:4", **options: Any
) -> tuple[Row, Masking, optim.SGD]:
    row = Row(DENSE)
    optimizer = optim.SGD(row.parameters(), **{"lr": 1.0, **options})
    return row, Masking(row, optimizer, algorithm, structure=structure), optimizer


def step(row: Row, masks: Masking, optimizer: optim.Optimizer, gradient: list[float]) -> list[float]:
    row.weight.grad = torch.tensor([gradient])
    masks.step()
    optimizer.step()
    return seen(row)


def seen(row: Row) -> list[float]:
    return [round(x, 6) for x in row.weight[0].tolist()]


def behind(masks: Masking) -> list[float]:
    return [round(x, 6) for x in masks.state_dict()["latent"]["dense"]["weight"][0].tolist()]


def test_the_three_formulas() -> None:
    dense, kept = torch.tensor([2.0, -4.0]), torch.tensor([True, False])
    gradient = torch.tensor([1.0, 3.0])
    assert leaky_weight(dense, kept, 0.0).tolist() == [2, 0]
    assert leaky_weight(dense, kept, 0.25).tolist() == [2, -1]
    assert srste_gradient(gradient, dense, kept, 0.5).tolist() == [1, 1]  # 3 + .5·(-4)
    assert through(gradient, kept, 0.25).tolist() == [1, 0.75]


def test_ste_by_hand() -> None:
    row, masks, optimizer = begun(STE())
    assert seen(row) == [0.9, 0, 0.5, 0]
    # θ - g = .7 -.9 .6 -.1, of which .9 and .7 are the largest
    assert step(row, masks, optimizer, FIRST) == [0.7, -0.9, 0, 0]
    assert behind(masks) == [0.7, -0.9, 0.6, -0.1]
    # .7 -1.4 .6 -.2
    assert step(row, masks, optimizer, SECOND) == [0.7, -1.4, 0, 0]


def test_srste_by_hand() -> None:
    row, masks, optimizer = begun(SRSTE(pull=0.5))
    # what is masked is pulled to zero: g + .5·θ there, .2 .75 -.1 .55
    assert step(row, masks, optimizer, FIRST) == [0.7, -0.85, 0, 0]
    assert behind(masks) == [0.7, -0.85, 0.6, -0.25]
    # the mask is now 1 1 0 0, the gradient 0 .5 .3 -.025
    assert step(row, masks, optimizer, SECOND) == [0.7, -1.35, 0, 0]
    assert behind(masks) == [0.7, -1.35, 0.3, -0.225]
    assert SRSTE().pull == 2e-4


def test_a_pull_of_nothing_is_ste() -> None:
    ends = []
    for algorithm in (STE(), SRSTE(pull=0.0)):
        row, masks, optimizer = begun(algorithm)
        ends.append([step(row, masks, optimizer, g) for g in (FIRST, SECOND, FIRST)])
    assert ends[0] == ends[1]


def test_decay_of_weights_and_momentum_are_those_of_the_dense_weights() -> None:
    row, masks, optimizer = begun(STE(), momentum=0.5, weight_decay=0.1)
    step(row, masks, optimizer, [0.0] * 4)
    assert behind(masks) == [0.81, -0.09, 0.45, 0.27]
    # momentum .09 -.01 .05 .03 halves and .081 -.009 .045 .027 comes to it, what is masked with the rest
    step(row, masks, optimizer, [0.0] * 4)
    assert behind(masks) == [0.684, -0.076, 0.38, 0.228]
    assert optimizer.state[row.weight]["momentum_buffer"].all()


@pytest.mark.parametrize("structure", ["2:4", "unstructured"])
@pytest.mark.parametrize("algorithm", [STE(refresh=2), SRSTE(pull=0.0, refresh=2)])
def test_a_choice_lasts_as_long_as_it_is_told(algorithm: LatentAlgorithm, structure: str) -> None:
    row, masks, optimizer = begun(algorithm, structure)
    assert step(row, masks, optimizer, FIRST) == [0.7, 0, 0.6, 0]  # the first choice still
    assert step(row, masks, optimizer, SECOND) == [0.7, -1.4, 0, 0]


def test_transposable_tiles_are_solved_again_after_so_many_steps() -> None:
    # rows of two, one of each: .9 + .1 beats .8 + .1 until weight 0 has lost .5
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.9, 0.8], [0.1, 0.1]]))
    model.register_buffer("weight_mask", torch.eye(2).bool())
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    masks = Masking(model, optimizer, Transposable(refresh=3), structure="1:2T")
    found = []
    for _ in range(4):
        model.weight.grad = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
        masks.step()
        optimizer.step()
        found.append(model.weight_mask.int().tolist())
    assert found == [[[1, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, 1], [1, 0]]]
    # after three steps θ is -.6 .8 / .1 .1
    assert Transposable().refresh == 40


def test_mask_decay_by_hand() -> None:
    # a dense phase of one step, then D = 1, .75, .5, .25, 0: no gradient moves anything
    row, masks, optimizer = begun(MaskDecay(0.25, begin=1))
    found = [seen(row), *(step(row, masks, optimizer, [0.0] * 4) for _ in range(6))]
    factors = [1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert found == [[0.9, round(-0.1 * d, 6) + 0, 0.5, round(0.3 * d, 6)] for d in factors]
    assert masks.density == 0.5


def test_the_mask_says_what_is_there_while_masks_decay() -> None:
    row, masks, optimizer = begun(MaskDecay(0.5))
    counts = [masks.nnz["weight"]]
    for _ in range(3):
        step(row, masks, optimizer, [0.0] * 4)
        counts.append(masks.nnz["weight"])
        assert not row.weight[~row.weight_mask].any()
    assert counts == [4, 4, 2, 2]


def test_an_exponential_decay_is_cut_off() -> None:
    decay = MaskDecay(0.5, begin=2, shape="exponential", end=6)
    assert [decay.leak(t) for t in (0, 2, 3, 5, 6)] == [1, 1, exp(-0.5), exp(-1.5), 0]
    assert (decay.arrival, MaskDecay(0.3, begin=2).arrival) == (6, 6)
    with pytest.raises(InputError, match="never 0 by itself"):
        MaskDecay(0.5, shape="exponential")
    with pytest.raises(InputError, match="linear and exponential"):
        MaskDecay(0.5, shape="cosine")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("straight", "expected"), [(True, [0.7, -0.9, 0.6, -0.1]), (False, [0.7, -0.5, 0.6, 0.1])]
)
def test_gradients_pass_straight_through_or_by_the_chain_rule(straight: bool, expected: list[float]) -> None:
    row, masks, optimizer = begun(MaskDecay(0.5, straight=straight))
    step(row, masks, optimizer, [0.0] * 4)
    assert seen(row) == [0.9, -0.05, 0.5, 0.15]  # D is .5 now, and so are the factors of the chain rule
    step(row, masks, optimizer, FIRST)
    assert behind(masks) == expected


@pytest.mark.parametrize(
    ("kept", "of", "expected"),
    [
        (1, 16, (15, 8, 4, 2, 1)),
        (2, 4, (3, 2)),
        (2, 8, (7, 4, 2)),
        (3, 8, (7, 4, 3)),
        (7, 8, (7,)),
        (1, 2, (1,)),
    ],
)
def test_structures_halve(kept: int, of: int, expected: tuple[int, ...]) -> None:
    """15:16, 8:16, 4:16, 2:16 and 1:16 in equal frames (arXiv 2402.04744, section 4)."""
    assert frames(kept, of) == expected


def test_structure_decay_by_hand() -> None:
    # a dense phase of one step, then three frames of two: 3:4, 2:4, 1:4
    row = Row([0.9, -0.1, 0.5, 0.3], kept=1)
    optimizer = optim.SGD(row.parameters(), lr=1.0)
    masks = Masking(row, optimizer, StructureDecay(end=7, begin=1), structure="1:4")
    found = [seen(row), *(step(row, masks, optimizer, [0.0] * 4) for _ in range(8))]
    three, two, one = [0.9, 0, 0.5, 0.3], [0.9, 0, 0.5, 0], [0.9, 0, 0, 0]
    assert found == [[0.9, -0.1, 0.5, 0.3], three, three, two, two, one, one, one, one]


def test_geometric_frames_halve_the_patterns_that_fit() -> None:
    """16:128, 8:64, 4:32, 2:16 and 1:8 (arXiv 2402.04744); what does not divide the inputs is as long as the next that does."""
    assert patterns(256, 1, 8, "geometric") == ((16, 128), (8, 64), (4, 32), (2, 16), (1, 8))
    assert patterns(48, 1, 8, "geometric") == ((2, 16), (2, 16), (2, 16), (2, 16), (1, 8))
    assert patterns(256, 1, 8, "stepwise") == ((7, 8), (4, 8), (2, 8), (1, 8))
    row = Row([0.9, 0.8, 0.5, 0.3], kept=2)
    optimizer = optim.SGD(row.parameters(), lr=1.0)
    masks = Masking(row, optimizer, StructureDecay(end=5, shape="geometric"), structure="1:2")
    found = [seen(row), *(step(row, masks, optimizer, [0.0] * 4) for _ in range(5))]
    assert found == [[0.9, 0.8, 0, 0]] * 4 + [[0.9, 0, 0.5, 0]] * 2  # 2:4 until the last frame
    with pytest.raises(InputError, match="tiles of 2:4T masks would not fit"):
        Masking(Row([0.0] * 4), optimizer, StructureDecay(end=5, shape="geometric"), structure="2:4T")
    with pytest.raises(InputError, match="stepwise and geometric"):
        StructureDecay(shape="linear")  # type: ignore[arg-type]


def test_cast_by_hand() -> None:
    row, masks, optimizer = begun(CAST(0.5, refresh=1, end=2))
    assert seen(row) == DENSE  # forward passes are dense until the end
    # α is 0: θ - g
    assert step(row, masks, optimizer, FIRST) == [0.7, -0.9, 0.6, -0.1]
    # the mask is 1 1 0 0 and α a half: what is masked moves by .5·0 + .25 and by .5·.1 - .25; then it is removed
    assert step(row, masks, optimizer, SECOND) == [0.7, -1.4, 0, 0]
    assert behind(masks) == [0.7, -1.4, 0.35, 0.1]
    assert (CAST().decay, CAST().refresh, CAST().end) == (4e-7, 10, 1.0)
    assert [CAST(begin=2, end=10).shrinking(t) for t in (0, 2, 4, 9, 10)] == [0, 0, 0.25, 0.875, 0]


def test_the_optimizer_of_cast_averages_the_decay_after_the_momentum() -> None:
    row = Row(DENSE)
    optimizer = AdamS(row.parameters(), lr=0.1, betas=(0.5, 0.75), eps=0.0)
    masks = Masking(row, optimizer, CAST(2.0, refresh=10, end=4), structure="2:4")
    mean, square, theta = [0.0] * 4, [0.0] * 4, list(DENSE)
    for t, gradient in enumerate((FIRST, SECOND, FIRST)):
        found = step(row, masks, optimizer, gradient)
        for i, g in enumerate(gradient):
            mean[i] = 0.5 * mean[i] + 0.5 * g
            part, sign = t / 4, copysign(1.0, theta[i])
            moved = mean[i] if i in (0, 2) else (1 - part) * mean[i] + part * 2.0 * sign  # m = 1 0 1 0
            square[i] = 0.75 * square[i] + 0.25 * moved**2
            theta[i] -= 0.1 * (moved / (1 - 0.5 ** (t + 1))) / (square[i] / (1 - 0.75 ** (t + 1))) ** 0.5
        assert found == pytest.approx(theta, abs=1e-6)
    assert optimizer.state[row.weight]["exp_avg"][0].tolist() == pytest.approx(mean)


# --- whoever looks -----------------------------------------------------------------------------------------


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 12))


@cache
def planned(mask: str) -> Plan:
    return ift.plan(
        ift.read_model(perceptron(), "1x16"), None, "1/2", scope="matrices", keep_dense=("last",), mask=mask
    )


METHODS: dict[str, tuple[LatentAlgorithm, str]] = {
    "STE": (STE(), "unstructured"),
    "SR-STE": (SRSTE(), "2:4"),
    "SR-STE, fan-in": (SRSTE(), "fan-in"),
    "transposable": (Transposable(refresh=4), "2:4T"),
    "Top-KAST": (TopKAST(0.2, refresh=4), "unstructured"),
    "Top-KAST, 2:4": (TopKAST(0.2, refresh=3), "2:4"),
    "mask decay": (MaskDecay(0.05, begin=3), "2:4"),
    "mask decay, chain": (MaskDecay(0.05, begin=3, straight=False), "block4x4"),
    "structure decay": (StructureDecay(end=20, begin=3), "2:4T"),
    "structure decay, geometric": (StructureDecay(end=20, begin=3, shape="geometric"), "2:4"),
    "CAST": (CAST(0.05, refresh=3, end=20), "2:4"),
}


def fresh(method: str, *, adam: bool = False, seed: int = 0) -> tuple[nn.Module, optim.Optimizer, Masking]:
    algorithm, mask = METHODS[method]
    plan = planned(mask)
    model = apply(plan, perceptron(), seed=seed, dense_start=True)
    optimizer = (
        optim.AdamW(model.parameters(), 0.01) if adam else optim.SGD(model.parameters(), 0.1, momentum=0.9)
    )
    return model, optimizer, Masking(model, optimizer, algorithm, structure=plan.mask)


def batch(number: int) -> Tensor:
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(number))


def train(model: nn.Module, optimizer: optim.Optimizer, masks: Masking, steps: range) -> None:
    for number in steps:
        optimizer.zero_grad()
        model(batch(number)).square().mean().backward()
        masks.step()
        optimizer.step()


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return bool(left == right)


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_zero_off_their_masks_whenever_someone_looks(method: str) -> None:
    model, optimizer, masks = fresh(method)
    for number in range(30):
        for weight in masked_weights(model):
            assert not weight.parameter[~weight.mask].any()
            dense = masks.state_dict()["latent"]["dense"][weight.name]
            chosen = masks.state_dict()["latent"]["chosen"][weight.name]
            assert torch.equal(weight.parameter[chosen], dense[chosen])
        train(model, optimizer, masks, range(number, number + 1))
    assert {x.weight: x.nnz for x in planned(METHODS[method][1]).layers if x.maskable} == dict(masks.nnz)
    assert any(
        bool(optimizer.state[w.parameter]["momentum_buffer"][~w.mask].any()) for w in masked_weights(model)
    )


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_after_the_end_nothing_is_off_the_masks(method: str, adam: bool) -> None:
    model, optimizer, masks = fresh(method, adam=adam)
    train(model, optimizer, masks, range(12 if method == "mask decay" else 30))  # at 12, D is .55
    masks.finish()
    assert masks.state_dict()["latent"] is None
    for weight in masked_weights(model):
        for value in (weight.parameter, *optimizer.state[weight.parameter].values()):
            if isinstance(value, Tensor) and value.shape == weight.mask.shape:
                assert not value[~weight.mask].any()
                assert value[weight.mask].any()
    assert {x.weight: x.nnz for x in planned(METHODS[method][1]).layers if x.maskable} == dict(masks.nnz)
    Masking(model, optimizer)  # the optimizer is free


@pytest.mark.parametrize("stop", [1, 7, 13])
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_ends_at_the_same_bits(method: str, stop: int) -> None:
    model, optimizer, masks = fresh(method)
    train(model, optimizer, masks, range(stop))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), masks.state_dict()))
    train(model, optimizer, masks, range(stop, 25))
    other, again, resumed = fresh(method, seed=1)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    train(other, again, resumed, range(stop, 25))
    assert same(model.state_dict(), other.state_dict())
    assert same(optimizer.state_dict(), again.state_dict())
    assert same(masks.state_dict(), resumed.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_is_skipped_changes_nothing(method: str) -> None:
    """As gradient scalers do where something has overflowed: the optimizer is not even called."""
    model, optimizer, masks = fresh(method)
    train(model, optimizer, masks, range(5))
    before, dense = copy.deepcopy(model.state_dict()), copy.deepcopy(masks.state_dict()["latent"])
    model(batch(5)).square().mean().backward()
    masks.step()
    optimizer.zero_grad()
    assert same(model.state_dict(), before)
    assert same(masks.state_dict()["latent"], dense)
    train(model, optimizer, masks, range(6, 8))
    assert masks.steps == 8
    assert not any(bool(w.parameter[~w.mask].any()) for w in masked_weights(model))


def test_a_choice_that_was_due_in_a_skipped_step_is_made_in_the_next() -> None:
    row, masks, optimizer = begun(STE(refresh=2))
    step(row, masks, optimizer, FIRST)
    row.weight.grad = torch.tensor([SECOND])
    masks.step()  # the masks of step 2 would be chosen after it
    assert seen(row) == [0.7, 0, 0.6, 0]
    assert step(row, masks, optimizer, SECOND) == [0.7, -1.4, 0, 0]


@pytest.mark.parametrize("method", ["SR-STE", "mask decay"])
def test_closures_make_no_difference(method: str) -> None:
    """As under Lightning: the optimizer's step calls the backward pass, and the masks' step after it."""
    plain, called = fresh(method), fresh(method)
    train(*plain, range(6))
    model, optimizer, masks = called
    for x in map(batch, range(6)):

        def closure(x: Tensor = x) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            masks.step()
            return loss

        optimizer.step(closure)
    assert same(plain[0].state_dict(), model.state_dict())
    assert same(plain[2].state_dict()["latent"], masks.state_dict()["latent"])


def test_accumulation_is_one_step() -> None:
    model, optimizer, masks = fresh("SR-STE")
    whole, other, together = fresh("SR-STE")
    for number in range(4):
        optimizer.zero_grad()
        for half in batch(number).chunk(2):
            (model(half).square().mean() / 2).backward()
        masks.step()
        optimizer.step()
    train(whole, other, together, range(4))
    assert masks.steps == 4
    for a, b in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_values_that_are_not_finite_choose_no_masks() -> None:
    model, optimizer, masks = fresh("SR-STE")
    train(model, optimizer, masks, range(3))
    before = {name: mask.clone() for name, mask in masks.masks().items()}
    model(batch(3)).square().mean().backward()
    model[0].weight.grad[0, 0] = float("nan")
    masks.step()
    optimizer.step()
    assert same(before, masks.masks())


def test_weights_behind_are_not_those_of_another_model() -> None:
    row = Row(DENSE, kept=3)
    with pytest.raises(InputError, match=r"structure=plan\.mask"):
        Masking(row, optim.SGD(row.parameters(), 0.1), STE(), structure="2:4")


# --- the ledger --------------------------------------------------------------------------------------------

# linear layers 16-24-24-12, of which the last stays dense: f_D = 384 + 576 + 288, f_S = (384 + 576)/2 + 288
OPEN, SPARSE = 1248, 768


def costs(method: str, steps: int, **options: Any) -> list[int]:
    model, optimizer, masks = fresh(method)
    plan = planned(METHODS[method][1])
    cost, groups = TrainingCost.of(plan, **options), weights_by_layer(plan, model)
    assert (cost.opened, cost.forward()) == (OPEN, SPARSE)
    entered = []
    for number in range(steps):
        train(model, optimizer, masks, range(number, number + 1))
        taken = masks.taken
        entered.append(cost.step(layer_counts(groups, taken.nnz), dense_gradient=taken.dense_gradient))
    return entered


@pytest.mark.parametrize(
    ("method", "input_gradient", "each"),
    [
        ("SR-STE", "structure", SPARSE + OPEN + OPEN),  # 2:4 along the inputs is not 2:4 along the outputs
        ("SR-STE", "sparse", 2 * SPARSE + OPEN),  # as published: 2·f_S + f_D
        ("SR-STE", "dense", SPARSE + 2 * OPEN),
        ("transposable", "structure", 2 * SPARSE + OPEN),
        ("transposable", "dense", SPARSE + 2 * OPEN),
        ("STE", "structure", 2 * SPARSE + OPEN),
        ("SR-STE, fan-in", "structure", SPARSE + 2 * OPEN),
        ("SR-STE, fan-in", "sparse", 2 * SPARSE + OPEN),
    ],
)
def test_weight_gradients_are_dense_and_input_gradients_as_the_structure_allows(
    method: str, input_gradient: str, each: int
) -> None:
    assert costs(method, 5, input_gradient=input_gradient) == [each] * 5


def test_mask_decay_is_dense_until_it_is_over() -> None:
    """D = 1 - .05·k from step 3 on is 0 at step 23."""
    assert costs("mask decay", 26) == [3 * OPEN] * 23 + [SPARSE + 2 * OPEN] * 3
    # by the chain rule nothing masked has a gradient, once D is 0
    assert costs("mask decay, chain", 26) == [3 * OPEN] * 23 + [3 * SPARSE] * 3


def test_structure_decay_costs_what_each_frame_keeps() -> None:
    """2:4 in two frames: a dense phase up to step 3, 3:4 for ⌈17/2⌉ steps, then 2:4; the weight gradient is dense."""
    three = (384 + 576) * 3 // 4 + 288
    expected = [3 * OPEN] * 3 + [2 * three + OPEN] * 9 + [2 * SPARSE + OPEN] * 12
    assert costs("structure decay", 24) == expected


@pytest.mark.parametrize("refresh", [1, 5, 8])
def test_the_final_pattern_is_chosen_where_it_begins(refresh: int) -> None:
    """Masks that are chosen every few steps may miss the last frame, and must not miss its end."""
    network = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))
    network = sparsify(network, "7/8", structure="1:8", keep_dense="last", dense_start=True)
    optimizer = optim.SGD(network.parameters(), 0.01)
    masks = Masking(network, optimizer, StructureDecay(end=12, refresh=refresh))
    for _ in range(14):
        network(torch.randn(4, 32)).sum().backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
    masks.finish()
    assert masks.masks()["0.weight"].view(16, 4, 8).sum(-1).eq(1).all()


@pytest.mark.parametrize(
    "algorithm",
    [
        inn.STE,
        inn.SRSTE,
        inn.Transposable,
        inn.MaskDecay,
        inn.StructureDecay,
        inn.CAST,
        inn.TopKAST,
        inn.SaRA,
    ],
)
def test_masks_are_not_chosen_more_often_than_every_step(algorithm: Any) -> None:
    with pytest.raises(InputError, match="at least every 1"):
        algorithm(refresh=0)
