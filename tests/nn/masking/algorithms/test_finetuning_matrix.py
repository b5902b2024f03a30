"""Methods that begin with trained weights × structure × optimizer × resume: counts, structures, and the same bits."""

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
    CAST,
    SRSTE,
    AdamS,
    MaskDecay,
    Masking,
    SaRA,
    Static,
    StructureDecay,
    add_adapters_,
    apply,
    masked_weights,
)
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import to_matrix
from tests.support.mask_matrix import OPTIMIZERS, Tiny, hold_to, in_groups, planned

STEPS, KEPT = 25, 13
"""Of a run, and of the checkpoint that it continues from: in the middle of every schedule."""
ROWS = ("unstructured", "2:4", "block2x4", "fan-in", "channel")
METHODS: dict[str, tuple[Algorithm, tuple[str, ...]]] = {
    "SR-STE": (SRSTE(refresh=3), (*ROWS, "2:4T")),
    "mask decay": (MaskDecay(0.06, begin=3), (*ROWS, "2:4T")),
    "structure decay": (StructureDecay(20, begin=3), ("2:4", "2:4T")),
    "structure decay, geometric": (StructureDecay(20, begin=3, shape="geometric"), ("2:4",)),
    "CAST": (CAST(0.05, refresh=3, end=20), ROWS),
    "SaRA": (SaRA(), ROWS),
    "SaRA, chosen again": (SaRA(refresh=5, nuclear=0.01), ROWS),
    "adapters": (Static(), (*ROWS, "2:4T")),
}
MAKERS: dict[str, tuple[Any, dict[str, Any]]] = {
    **OPTIMIZERS,
    "AdamS": (AdamS, {"lr": 0.01, "weight_decay": 0.01}),
}
PAIRS = [(method, structure) for method, (_, able) in METHODS.items() for structure in able]
CASES = dict.fromkeys(
    [
        *((*pair, optimizer) for pair in PAIRS for optimizer in ("SGD", "Adam", "AdamS")),
        *((method, "2:4", optimizer) for method in ("CAST", "SaRA", "adapters") for optimizer in MAKERS),
    ]
)
SAMPLE = {
    ("SR-STE", "fan-in", "Adam"),
    ("structure decay", "2:4T", "SGD"),
    ("CAST", "2:4", "AdamS"),
    ("SaRA", "unstructured", "Adam"),
    ("adapters", "block2x4", "SGD"),
}


def cases() -> list[Any]:
    """All cases; all but a sample take a while together."""
    return [case if case in SAMPLE else pytest.param(*case, marks=pytest.mark.slow) for case in CASES]


def batch(step: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(step)
    return torch.randn(8, 2, 4, 4, generator=drawn), torch.randint(3, (8,), generator=drawn)


@dataclass
class Run:
    """A run in progress."""

    model: nn.Module
    optimizer: optim.Optimizer
    masks: Masking

    @classmethod
    def begun(cls, method: str, structure: str, optimizer: str, seed: int = 0) -> Run:
        plan, algorithm = planned("uniform", structure), METHODS[method][0]
        torch.manual_seed(seed)
        model = apply(plan, Tiny(), seed=seed, dense_start=algorithm.starts_dense)
        if method == "adapters":
            add_adapters_(model, 2, layers=["a", "c", "d"], seed=seed)  # b is in groups
        make, options = MAKERS[optimizer]
        groups = in_groups(model)
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        stepper = make(groups, **options)
        return cls(model, stepper, Masking(model, stepper, algorithm, structure=plan.mask, seed=seed))

    def go_on(self, first: int, last: int) -> None:
        for step in range(first, last):
            x, y = batch(step)
            self.optimizer.zero_grad()
            cross_entropy(self.model(x), y).backward()
            self.masks.step()
            self.optimizer.step()

    def state(self) -> Any:
        return copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), self.masks.state_dict()))

    def load(self, state: Any) -> None:
        model, optimizer, masks = copy.deepcopy(state)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.masks.load_state_dict(masks)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize(("method", "structure", "optimizer"), cases())
def test_counts_structures_and_the_same_bits_after_a_resume(
    method: str, structure: str, optimizer: str
) -> None:
    run, plan = Run.begun(method, structure, optimizer), planned("uniform", structure)
    before = {w.name: w.parameter.detach().clone() for w in masked_weights(run.model)}
    run.go_on(0, KEPT)
    kept = run.state()
    run.go_on(KEPT, STEPS)
    again = Run.begun(method, structure, optimizer, seed=3)
    again.load(kept)
    again.go_on(KEPT, STEPS)
    assert same(run.state(), again.state())
    counts = {layer.weight: layer.nnz for layer in plan.layers if layer.maskable}
    moved = {w.name: int((w.parameter != before[w.name]).sum()) for w in masked_weights(run.model)}
    if method == "adapters":
        assert not any(moved[name] for name in ("a.weight", "c.weight", "d.weight"))
    elif method == "SaRA":  # weights of silent neurons do not move where nothing decays
        assert all(0 < moved[name] <= count for name, count in counts.items())
    elif "SaRA" in method:
        assert sum(moved.values()) > 0
    else:
        run.masks.finish()
        hold_to(plan, run.masks)
    if "SaRA" not in method:
        assert run.masks.nnz == counts
        for weight in masked_weights(run.model):
            assert holds(parse_mask(structure), to_matrix(weight.mask, weight)), weight.name
