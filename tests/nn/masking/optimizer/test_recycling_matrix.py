"""Recycling × method × structure × optimizer × resume: counts are exact, structures hold, runs go on to the same bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy

from iftplan.masks import parse_mask
from iftplan.nn import (
    MEST,
    SET,
    SNFS,
    Gradual,
    GraNet,
    Masking,
    Recycling,
    RigL,
    Static,
    apply,
    masked_weights,
)
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import to_matrix
from iftplan.runs.schedules import Updates
from tests.support.mask_matrix import OPTIMIZERS, Tiny, hold_to, in_groups, planned

STEPS, KEPT = 25, 13  # neurons are recycled after the last step
RECYCLING = Recycling(interval=5, threshold=0.6)
UPDATES = Updates(end=18, interval=3)
METHODS: dict[str, Algorithm] = {
    "static": Static(),
    "SET": SET(UPDATES),
    "RigL": RigL(UPDATES),
    "MEST": MEST(UPDATES),
    "SNFS": SNFS(UPDATES, redistribution="none"),
    "GMP": Gradual(UPDATES),
    "GraNet": GraNet(UPDATES),
}
STRUCTURES = {
    "static": ("unstructured", "2:4", "block2x4", "fan-in"),
    "GMP": ("unstructured", "2:4"),
    "GraNet": ("unstructured", "2:4"),
}
ALL = ("unstructured", "2:4", "block2x4", "fan-in", "channel")
PAIRS = [(method, structure) for method in METHODS for structure in STRUCTURES.get(method, ALL)]
CASES = dict.fromkeys(
    [
        *((*pair, optimizer) for pair in PAIRS for optimizer in ("SGD", "Adam")),
        *(("RigL", "2:4", optimizer) for optimizer in OPTIMIZERS),
    ]
)
SAMPLE = {("RigL", "unstructured", "Adam"), ("SET", "2:4", "SGD"), ("static", "fan-in", "Adam")}


def cases() -> list[Any]:
    """All cases; all but a sample take a while together."""
    return [case if case in SAMPLE else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]


@dataclass
class Run:
    """A run in progress."""

    model: nn.Module
    optimizer: optim.Optimizer
    masks: Masking
    recycled: int = 0

    @classmethod
    def begun(cls, method: str, structure: str, optimizer: str, seed: int = 0) -> Run:
        plan, algorithm = planned("uniform", structure), METHODS[method]
        torch.manual_seed(seed)
        model = apply(plan, Tiny(), seed=seed, dense_start=algorithm.starts_dense)
        make, options = OPTIMIZERS[optimizer]
        stepper = make(in_groups(model), **options)
        return cls(model, stepper, Masking(model, stepper, algorithm, structure=plan.mask, seed=seed))

    def go_on(self, first: int, last: int) -> None:
        for step in range(first, last):
            x, y = batch(step)
            self.optimizer.zero_grad()
            cross_entropy(self.model(x), y).backward()
            self.masks.step()
            self.optimizer.step()
            done = RECYCLING.step_(self.model, self.optimizer, x, step + 1)
            self.recycled += done.neurons if done is not None else 0

    def state(self) -> Any:
        return copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), self.masks.state_dict()))

    def load(self, state: Any) -> None:
        model, optimizer, masks = copy.deepcopy(state)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.masks.load_state_dict(masks)


def batch(step: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(step)
    return torch.randn(8, 2, 4, 4, generator=drawn), torch.randint(3, (8,), generator=drawn)


@pytest.mark.parametrize(("method", "structure", "optimizer"), cases())
def test_recycling_keeps_counts_and_runs_resume_to_the_bit(
    method: str, structure: str, optimizer: str
) -> None:
    run = Run.begun(method, structure, optimizer)
    run.go_on(0, KEPT)
    kept = run.state()
    run.go_on(KEPT, STEPS)
    assert run.recycled > 0
    hold_to(planned("uniform", structure), run.masks)
    for weight in masked_weights(run.model):
        assert holds(parse_mask(structure), to_matrix(weight.mask, weight)), weight.name
    again = Run.begun(method, structure, optimizer, seed=3)
    again.load(kept)
    again.go_on(KEPT, STEPS)
    for left, right in zip(tensors(run), tensors(again), strict=True):
        assert torch.equal(left, right)


def tensors(run: Run) -> list[Tensor]:
    slots = [x for state in run.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return [*run.model.state_dict().values(), *slots]
