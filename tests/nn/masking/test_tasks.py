"""Several tasks in one network: nothing is forgotten, shared weights are counted once, and a full network is used as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import iftplan as ift
from iftplan.base.errors import InputError, StaleError
from iftplan.nn import (
    MEST,
    SET,
    SNFS,
    Algorithm,
    Masking,
    RigL,
    Static,
    TaskMasks,
    apply,
    masked_weights,
    sparsify_,
    step_macs,
    weights_by_layer,
)
from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.mask_matrix import OPTIMIZERS

STEPS = 12


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
    )


def masked(sparsity: float = 0.75) -> nn.Module:
    return sparsify_(network(), sparsity, keep_dense=("first", "last"))


def batches(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        x = torch.randn(16, 6, generator=drawn)
        yield x, x[:, seed : seed + 3].argmax(1)


def learn(tasks: TaskMasks, name: str, seed: int, algorithm: Algorithm) -> None:
    tasks.begin_(name)
    model = tasks.model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-3)
    masks = Masking(model, optimizer, algorithm, steps=STEPS)
    for x, y in batches(seed):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        masks.step()
        optimizer.step()
        tasks.hold_()
    masks.finish()
    tasks.finish_()


@pytest.mark.parametrize("algorithm", [RigL(interval=2, end=10), SET(interval=2, end=10)])
def test_earlier_tasks_answer_as_they_did_to_the_bit(algorithm: Algorithm) -> None:
    tasks = TaskMasks(masked())
    x, answers = torch.randn(9, 6, generator=torch.Generator().manual_seed(5)), {}
    for seed, name in enumerate(("first", "second", "third")):
        learn(tasks, name, seed, algorithm)
        answers[name] = tasks.use_(name).eval()(x)
    for name, answer in answers.items():
        assert torch.equal(tasks.use_(name).eval()(x), answer)
    assert len({tuple(answer.flatten().tolist()) for answer in answers.values()}) == 3


def test_shared_weights_are_counted_once() -> None:
    """Of 400 weights each task keeps 100; RigL moves the second task's mask onto some of the first's."""
    tasks, unions = TaskMasks(masked()), torch.zeros(20, 20, dtype=torch.bool)
    for seed, name in enumerate(("first", "second")):
        learn(tasks, name, seed, RigL(interval=1, end=10))
        (weight,) = masked_weights(tasks.use_(name))
        unions |= weight.mask
    capacity = tasks.capacity
    assert (capacity.maskable, capacity.kept) == (400, {"first": 100, "second": 100})
    assert capacity.used == int(unions.sum()) < 200
    assert capacity.trained == {"first": 100, "second": capacity.used - 100}
    assert capacity.share == Fraction(capacity.used, 400)
    own = (
        (6 * 20 + 20) + (4 * 20 + 1) + 20 + (20 * 3 + 3)
    )  # the first layer, the norm, a bias and the last layer
    assert capacity.own == own
    assert capacity.stored == capacity.used + 2 * own


def test_weights_of_earlier_tasks_do_not_move_in_training() -> None:
    tasks = TaskMasks(masked(0.25))
    learn(tasks, "first", 0, SET(interval=2, end=10))
    (weight,) = masked_weights(tasks.use_("first"))
    mask, values = weight.mask.clone(), weight.parameter.detach().clone()
    tasks.begin_("second")
    assert tasks.trained() == {weight.name: 100}  # of 300 in a network with 100 left
    shared = weight.mask & mask
    assert int(shared.sum()) == 200
    assert torch.equal(weight.parameter[shared], values[shared])
    assert weight.parameter[weight.mask & ~mask].all()
    optimizer = torch.optim.Adam(tasks.model.parameters(), 0.1, weight_decay=0.1)
    masks = Masking(tasks.model, optimizer, RigL(interval=1, end=10), steps=STEPS)
    for x, y in batches(1):
        optimizer.zero_grad()
        cross_entropy(tasks.model(x), y).backward()
        masks.step()
        optimizer.step()
        tasks.hold_()
        shared = weight.mask & mask
        assert torch.equal(weight.parameter[shared], values[shared])


def test_a_full_network_is_used_as_it_is() -> None:
    tasks = TaskMasks(masked(0.5))
    for seed, name in enumerate(("first", "second", "third")):
        learn(tasks, name, seed, Static())
    assert tasks.capacity.trained == {"first": 200, "second": 200, "third": 0}
    assert tasks.capacity.share == 1


def test_frozen_weights_need_no_gradients_in_the_ledger() -> None:
    """A sample of the second task: two passes with 300 weights, and gradients of the 100 that are free."""
    plan = ift.plan(network(), "none", "1/4", inputs="1x6", keep_dense=("first", "last"))
    tasks = TaskMasks(apply(plan, network()))
    learn(tasks, "first", 0, SET(interval=2, end=10))
    tasks.begin_("second")
    masks = Masking(tasks.model, torch.optim.SGD(tasks.model.parameters(), 0.1))
    groups = weights_by_layer(plan, tasks.model)
    found = step_macs(TrainingCost.of(plan), groups, replace(masks.taken, reached=tasks.trained()), 7)
    assert found == 7 * (3 * (6 * 20 + 20 * 3) + 2 * 300 + 100)


OPTIMIZED = {name: OPTIMIZERS[name] for name in ("SGD", "Adam foreach", "AdamW amsgrad")}
METHODS: dict[str, Algorithm] = {
    "static": Static(),
    "SET": SET(interval=2, end=10),
    "RigL": RigL(interval=2, end=10),
}
METHODS |= {"MEST": MEST(interval=2, end=10), "SNFS": SNFS(interval=2, end=10, redistribution="none")}


@dataclass
class Run:
    """Training of several tasks, in progress."""

    tasks: TaskMasks
    optimizer: torch.optim.Optimizer
    masks: Masking

    @classmethod
    def begun(cls, tasks: TaskMasks, method: str, optimizer: str) -> Run:
        make, options = OPTIMIZED[optimizer]
        stepper = make(tasks.model.train().parameters(), **options)
        return cls(tasks, stepper, Masking(tasks.model, stepper, METHODS[method], steps=STEPS))

    def go_on(self, seed: int, first: int, last: int) -> None:
        for x, y in islice(batches(seed), first, last):
            self.optimizer.zero_grad()
            cross_entropy(self.tasks.model(x), y).backward()
            self.masks.step()
            self.optimizer.step()
            self.tasks.hold_()

    def end(self) -> None:
        self.masks.finish()
        self.tasks.finish_()

    def answers(self) -> list[Tensor]:
        x = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))
        return [self.tasks.use_(name).eval()(x) for name in self.tasks.names]


@pytest.mark.parametrize("optimizer", OPTIMIZED)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_resumed_in_its_second_task_ends_at_the_same_bits(method: str, optimizer: str) -> None:
    tasks = TaskMasks(masked(0.5))
    tasks.begin_("first")
    run = Run.begun(tasks, method, optimizer)
    run.go_on(0, 0, STEPS)
    run.end()
    tasks.begin_("second")
    run = Run.begun(tasks, method, optimizer)
    run.go_on(1, 0, 5)
    parts = (tasks.model, tasks, run.optimizer, run.masks)
    kept = copy.deepcopy([part.state_dict() for part in parts])
    run.go_on(1, 5, STEPS)
    run.end()

    other = TaskMasks(masked(0.5), seed=7)
    again = Run.begun(other, method, optimizer)
    other.model.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    again.optimizer.load_state_dict(kept[2])
    again.masks.load_state_dict(kept[3])
    again.go_on(1, 5, STEPS)
    again.end()
    assert other.names == ("first", "second")
    assert other.capacity == tasks.capacity
    assert all(map(torch.equal, run.answers(), again.answers()))
    (weight,) = masked_weights(run.tasks.use_("second"))
    assert int(weight.mask.sum()) == 200
    with pytest.raises(StaleError, match="of another model"):
        TaskMasks(sparsify_(nn.Linear(4, 4), 0.5, keep_dense="none")).load_state_dict(kept[1])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="has no masks"):
        TaskMasks(network())
    with pytest.raises(InputError, match="2:4"):
        TaskMasks(sparsify_(network(), 0.5, structure="2:4"))
    tasks = TaskMasks(masked())
    with pytest.raises(InputError, match="no task has begun"):
        tasks.finish_()
    tasks.begin_("a")
    with pytest.raises(InputError, match="'a', which has not ended"):
        tasks.begin_("b")
    with pytest.raises(InputError, match="no finished task 'a'; there are none"):
        tasks.use_("a")
    tasks.finish_()
    with pytest.raises(InputError, match="there is a task 'a'"):
        tasks.begin_("a")
