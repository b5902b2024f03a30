"""Growth × method × optimizer × resume: masks keep their density, nothing is off them, and runs go on to the same bit."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy

from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn import MEST, SET, SNFS, Masking, RigL, Static, grow_, masked_weights, read_model, sparsify_
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.warmstart.growth.grow import How
from iftplan.runs.schedules import Updates
from tests.support.mask_matrix import OPTIMIZERS

INPUTS = (InputSpec((1, 6)),)
STEPS, GROWS = 12, 6
UPDATES = Updates(end=12, interval=2)
METHODS: dict[str, Algorithm | None] = {
    "dense": None,
    "static": Static(),
    "SET": SET(UPDATES),
    "RigL": RigL(UPDATES),
    "MEST": MEST(UPDATES),
    "SNFS": SNFS(UPDATES, redistribution="none"),
}
HOWS: tuple[How, ...] = ("gradmax", "random", "replicas")
CASES = dict.fromkeys(
    [
        *((how, method, optimizer) for how in HOWS for method in METHODS for optimizer in ("SGD", "Adam")),
        *(("gradmax", "RigL", optimizer) for optimizer in OPTIMIZERS),
    ]
)
SAMPLE = {("gradmax", "RigL", "Adam"), ("random", "dense", "SGD"), ("replicas", "SET", "Adam")}


def cases() -> list[Any]:
    """All cases; all but a sample take a while together."""
    return [case if case in SAMPLE else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 4))


@cache
def traced() -> tuple[Couplings, str]:
    couplings = read_model(network(), INPUTS, widths=True).couplings
    assert couplings is not None
    return couplings, str(couplings.shapes["0.weight"][0])


def batch(step: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(step)
    return torch.randn(8, 6, generator=drawn), torch.randint(4, (8,), generator=drawn)


def loss_of(model: nn.Module, step: int) -> Tensor:
    x, y = batch(step)
    return cross_entropy(model(x), y)


@dataclass
class Run:
    """A run in progress."""

    how: How
    method: str
    model: nn.Module
    optimizer: optim.Optimizer
    masks: Masking | None

    @classmethod
    def begun(cls, how: How, method: str, optimizer: str, seed: int = 0, *, grown: bool = False) -> Run:
        """At the first step, or at the widths behind the growth step."""
        model = network(seed)
        if METHODS[method] is not None:
            sparsify_(model, 0.5, keep_dense="none", seed=seed)
        if grown:
            grow_(model, traced()[0], {traced()[1]: 11}, INPUTS, how="replicas")
        make, options = OPTIMIZERS[optimizer]
        run = cls(how, method, model, make(model.parameters(), **options), None)
        run.mask_(seed)
        return run

    def mask_(self, seed: int = 0) -> None:
        algorithm = METHODS[self.method]
        if algorithm is not None:
            self.masks = Masking(self.model, self.optimizer, algorithm, seed=seed)

    def grow(self) -> None:
        if self.masks is not None:
            self.masks.release()
        loss = None if self.how == "replicas" else lambda: loss_of(self.model, GROWS)
        grow_(
            self.model,
            traced()[0],
            {traced()[1]: 11},
            INPUTS,
            how=self.how,
            loss=loss,
            optimizer=self.optimizer,
        )
        if self.masks is not None:
            steps = self.masks.steps
            self.mask_()
            self.masks.steps = steps

    def go_on(self, first: int, last: int) -> None:
        for step in range(first, last):
            if step == GROWS:
                self.grow()
            self.optimizer.zero_grad()
            loss_of(self.model, step).backward()
            if self.masks is not None:
                self.masks.step()
            self.optimizer.step()

    def state(self) -> Any:
        masks = self.masks.state_dict() if self.masks is not None else None
        return copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), masks))

    def load(self, state: Any) -> None:
        model, optimizer, masks = copy.deepcopy(state)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        if self.masks is not None:
            self.masks.load_state_dict(masks)


@pytest.mark.parametrize(("how", "method", "optimizer"), cases())
def test_growth_keeps_densities_and_runs_resume_to_the_bit(how: How, method: str, optimizer: str) -> None:
    run, kept = Run.begun(how, method, optimizer), dict[int, Any]()
    for stop in (GROWS - 2, GROWS, GROWS + 2):
        run.go_on(max(kept, default=0), stop)
        kept[stop] = run.state()
    run.go_on(GROWS + 2, STEPS)
    weights = {w.name: w for w in masked_weights(run.model)}
    if run.masks is not None:  # half of 6·11, 11·12 and 12·4
        assert {name: int(w.mask.sum()) for name, w in weights.items()} == {
            "0.weight": 33,
            "2.weight": 66,
            "4.weight": 24,
        }
    for weight in weights.values():
        off = ~weight.mask
        assert not weight.parameter[off].any()
        slots = [x for x in run.optimizer.state[weight.parameter].values() if isinstance(x, Tensor)]
        assert not any(slot[off].any() for slot in slots if slot.shape == off.shape)
    for stop, state in kept.items():
        again = Run.begun(how, method, optimizer, seed=3, grown=stop > GROWS)
        again.load(state)
        again.go_on(stop, STEPS)
        for left, right in zip(tensors(run), tensors(again), strict=True):
            assert torch.equal(left, right), stop


def tensors(run: Run) -> list[Tensor]:
    slots = [x for state in run.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return [*run.model.state_dict().values(), *slots]
