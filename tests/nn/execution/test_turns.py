"""Training that is compact between mask updates is the same training: masks, weights, momentum and checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.nn.execution.execute import dense_gradients_, execute_sparse_
from iftplan.nn.execution.layers import CompactConv2d, CompactLinear
from iftplan.nn.execution.turns import Turns
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masking.algorithms.exchange.rigl import RigL
from iftplan.nn.masking.algorithms.exchange.set import SET
from iftplan.nn.masking.algorithms.pruning.gradual import Gradual
from iftplan.nn.masking.algorithms.static import Static
from iftplan.nn.masking.masking import Masking
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.nn.training.optimization.lamb import Lamb
from iftplan.runs.schedules import Updates

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

Make = Callable[[nn.Module], Optimizer]
UPDATES = Updates(end=12, interval=3)
SGD: Make = lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)  # noqa: E731
ADAM: Make = lambda model: torch.optim.AdamW(model.parameters(), 0.01)  # noqa: E731


class Rows(nn.Module):
    """transformers' linear layer on two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Conv1D(24, 48)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rows(x)
        return y


def network(dtype: torch.dtype, *, opened: bool = False, density: float = 0.3) -> nn.Sequential:
    """Every kind of layer that can be compact, a masked one that is too dense for it, and one without a mask."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8),
        nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 16, 48), nn.ReLU(), Rows(), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip
    for layer, kept in (
        (net[0], density),
        (net[3], density),
        (net[6], density),
        (net[8].rows, density),
        (net[10], 0.9),
    ):
        weight: Any = layer.weight
        layer.register_buffer("weight_mask", torch.rand(weight.shape) < kept)
        if not opened:
            weight.data[~layer.weight_mask] = 0
    return net.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batch(step: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(6, 2, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(step))


class Training:
    """Steps of one network, whose masked layers take turns where that is asked for."""

    def __init__(
        self, make: Make, algorithm: Algorithm, how: str, dtype: torch.dtype = torch.float64
    ) -> None:
        self.model, self.dtype = network(dtype, opened=algorithm.starts_dense), dtype
        if how != "dense":
            execute_sparse_(self.model)
        self.optimizer = make(self.model)
        self.masks = Masking(self.model, self.optimizer, algorithm, seed=3)
        self.turns = Turns(self.model, self.optimizer) if how == "compact" else None
        self.losses: list[float] = []
        self.forms: list[str] = []

    def step(self, step: int) -> None:
        if self.turns is not None:
            (self.turns.expand_ if self.masks.changes_masks else self.turns.compact_)()
        self.forms.append(type(self.model[6]).__name__)
        dense_gradients_(self.model, self.masks.wants_dense_gradient)
        loss = nn.functional.cross_entropy(self.model(batch(step, self.dtype)), torch.arange(6) % 5)
        loss.backward()
        self.masks.step()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(float(loss.detach()))

    def state(self) -> dict[str, Any]:
        if self.turns is not None:
            self.turns.expand_()
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "masks": self.masks.state_dict(),
            }
        )

    def load(self, state: dict[str, Any]) -> None:
        state = copy.deepcopy(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.masks.load_state_dict(state["masks"])


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=str)]
    parts = value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("make", [SGD, ADAM], ids=["sgd", "adamw"])
@pytest.mark.parametrize("algorithm", [RigL(UPDATES), SET(UPDATES), Static()], ids=["rigl", "set", "static"])
def test_a_training_in_turns_is_the_training_on_sparse_kernels_to_the_bit(
    make: Make, algorithm: Algorithm
) -> None:
    """Both add up products in one order, and an optimizer moves each weight by itself."""
    one, other = Training(make, algorithm, "sparse"), Training(make, algorithm, "compact")
    for step in range(14):
        one.step(step)
        other.step(step)
    updates = 0 if isinstance(algorithm, Static) else one.masks.exploration.updates
    assert updates == 0 if isinstance(algorithm, Static) else updates >= 3
    assert other.forms.count("SparseLinear") == updates and other.forms.count("CompactLinear") == 14 - updates
    assert one.losses == other.losses
    first, second = one.state(), other.state()
    assert list(first["model"]) == list(second["model"])
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert dict(one.masks.nnz) == dict(other.masks.nnz) == dict(other.masks.taken.nnz)
    assert one.masks.taken.dense_gradient == other.masks.taken.dense_gradient
    assert [p.stride() for p in one.model.parameters()] == [p.stride() for p in other.model.parameters()]


@pytest.mark.parametrize("make", [SGD, ADAM], ids=["sgd", "adamw"])
def test_it_is_the_masked_dense_training_within_rounding(make: Make) -> None:
    """In float64 sums of n products are off by n·2^-53 of their terms; masks are equal, as no two scores are so close."""
    dense, compact = Training(make, RigL(UPDATES), "dense"), Training(make, RigL(UPDATES), "compact")
    for step in range(14):
        dense.step(step)
        compact.step(step)
    assert compact.losses == pytest.approx(dense.losses, rel=1e-9)
    state, there = dense.state(), compact.state()
    for name, value in state["model"].items():
        torch.testing.assert_close(there["model"][name], value, rtol=1e-7, atol=1e-9)
    for name, mask in state["masks"]["masks"].items():
        assert torch.equal(there["masks"]["masks"][name], mask)


def test_a_checkpoint_of_one_is_continued_by_the_other() -> None:
    """Written between two updates, and in the step before one."""
    for at in (4, 6):
        compact = Training(SGD, RigL(UPDATES), "compact")
        sparse = Training(SGD, RigL(UPDATES), "sparse")
        for step in range(at):
            compact.step(step)
        sparse.load(compact.state())
        again = Training(SGD, RigL(UPDATES), "compact")
        again.load(compact.state())
        for step in range(at, 14):
            for training in (compact, sparse, again):
                training.step(step)
        assert compact.losses[at:] == sparse.losses == again.losses
        states = [tensors(training.state()) for training in (compact, sparse, again)]
        for same in zip(*states, strict=True):
            assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


def test_the_optimizer_holds_kept_values_alone() -> None:
    training = Training(ADAM, RigL(UPDATES), "compact")
    for step in range(2):
        training.step(step)
    model, state = training.model, training.optimizer.state
    assert isinstance(model[0], CompactConv2d) and isinstance(model[6], CompactLinear)
    kept = int(model[6].weight_mask.sum())
    assert state[model[6].values]["exp_avg"].shape == model[6].values.shape
    assert kept <= model[6].values.numel() < 1.2 * kept
    assert (
        {*state}
        == {p for group in training.optimizer.param_groups for p in group["params"]}
        == {*model.parameters()}
    )
    assert type(model[10]) is nn.Linear and model[10].weight.shape == (16, 24)  # too dense to pay
    assert not model[10].weight[~model[10].weight_mask].any()


def test_pruning_becomes_compact_once_it_pays() -> None:
    compact = Training(SGD, Gradual(UPDATES), "compact")
    sparse = Training(SGD, Gradual(UPDATES), "sparse")
    for step in range(14):
        compact.step(step)
        sparse.step(step)
    assert compact.forms[0] == "Linear" and compact.forms[-1] == "CompactLinear"
    assert compact.losses == sparse.losses


def test_optimizers_that_measure_whole_weights_are_off_by_rounding_only() -> None:
    make: Make = lambda model: Lamb([{"params": [*model.parameters()], "weight_decay": 0.01}], lr=0.01)  # noqa: E731
    compact, sparse = Training(make, RigL(UPDATES), "compact"), Training(make, RigL(UPDATES), "sparse")
    for step in range(10):
        compact.step(step)
        sparse.step(step)
    assert compact.losses == pytest.approx(sparse.losses, rel=1e-9)


def test_in_single_precision_too() -> None:
    compact = Training(SGD, RigL(UPDATES), "compact", torch.float32)
    sparse = Training(SGD, RigL(UPDATES), "sparse", torch.float32)
    for step in range(14):
        compact.step(step)
        sparse.step(step)
    assert compact.losses == sparse.losses
