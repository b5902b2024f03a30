"""Pruning at the start by hand: gradient flow, saliency in rounds, synaptic flow, and what they have in common."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn, optim

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.masks import Unstructured
from iftplan.nn import Force, GraSP, Masking, Saliency, SynFlow, masked_weights, sparsify
from iftplan.nn.masking.algorithms.at_start.ranking import check_told_apart, exponentially
from iftplan.nn.masking.algorithms.base import Algorithm
from iftplan.nn.masking.layer import Layer
from iftplan.nn.masking.measures.synaptic_flow import Ones, synaptic_flow
from iftplan.nn.masks.masked_weights import MaskedWeight, register_mask_

Scope = Literal["layer", "global"]


class Quadratic(nn.Module):
    """Loss ½·θᵀAθ of one row of weights, so that g = Aθ and Hg = A·Aθ."""

    def __init__(self, weights: list[float], matrix: list[list[float]], kept: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weights]))
        self.matrix = torch.tensor(matrix)
        mask = torch.zeros(1, len(weights), dtype=torch.bool)
        mask[0, :kept] = True
        register_mask_(MaskedWeight("weight", self, "weight"), mask, Unstructured())

    def forward(self) -> Tensor:
        return (self.weight @ self.matrix @ self.weight.T).sum() / 2


def rounds_of(model: Quadratic, algorithm: Algorithm, rounds: int) -> list[list[int]]:
    """Weights that are kept after each step."""
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), algorithm)
    kept = []
    for _ in range(rounds):
        model().backward(create_graph=masks.wants_graph)
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
        kept.append(next(masked_weights(model)).mask[0].nonzero().flatten().tolist())
    return kept


def test_grasp_by_hand() -> None:
    """g = (-3, 0, 3), Hg = (-3, 6, 3), θ·Hg = (-3, 12, 9), where saliency |θ·g| would be (3, 0, 9)."""
    matrix = [[1.0, -2.0, 0.0], [-2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    weights = [1.0, 2.0, 3.0]
    assert rounds_of(Quadratic(weights, matrix, 2), GraSP(), 1) == [[1, 2]]
    assert rounds_of(Quadratic(weights, matrix, 2), Saliency(), 1) == [[0, 2]]
    model = Quadratic(weights, matrix, 1)
    assert rounds_of(model, GraSP(), 1) == [[1]]
    assert model.weight.tolist() == [[0.0, 2.0, 0.0]]  # nothing was trained in that step


def test_grasp_counts_the_flow_through_all_trained_parameters() -> None:
    """L = θ·b²/2 has g = (b²/2, θb) and gᵀg = b⁴/4 + θ²b², whose half derivative by θ is θb²: times θ, θ²b²."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
            self.bias = nn.Parameter(torch.tensor([1.0, 3.0]))
            register_mask_(
                MaskedWeight("weight", self, "weight"), torch.tensor([[True, False]]), Unstructured()
            )

        def forward(self) -> Tensor:
            return (self.weight * self.bias.square()).sum() / 2

    model = Net()
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), GraSP())
    model().backward(create_graph=True)
    masks.step()
    masks.optimizer.step()
    assert model.weight_mask.tolist() == [
        [False, True]
    ]  # 36 against 1; by the flow through θ alone, neither has any


# rows add up to 8, 8, 0 and 1 with all weights of 1, and with the first two alone to 2, 2, 10 and 2
COUPLED = [[1.0, 1.0, 5.0, 1.0], [1.0, 1.0, 5.0, 1.0], [5.0, 5.0, -9.0, -1.0], [1.0, 1.0, -1.0, 0.0]]


def test_force_by_hand() -> None:
    """4·(1/4)^(1/2) = 2 stay after the first of two rounds; what it pruned comes back with its value."""
    model = Quadratic([1.0] * 4, COUPLED, 1)
    assert rounds_of(model, Force(rounds=2), 2) == [[0, 1], [2]]
    assert model.weight.tolist() == [[0.0, 0.0, 1.0, 0.0]]


def test_iterative_snip_lets_nothing_come_back() -> None:
    model = Quadratic([1.0] * 4, COUPLED, 1)
    assert rounds_of(model, Force(rounds=2, regrow=False), 2) == [[0, 1], [0]]


def test_every_round_leaves_the_same_part() -> None:
    """Equation 8 of arXiv 2006.09081, in whole weights that are at least the target."""
    assert [exponentially(t, 4)(10_000, 1) for t in (1, 2, 3, 4, 5)] == [1000, 100, 10, 1, 1]
    assert [exponentially(t, 3)(7, 5) for t in (1, 2, 3)] == [7, 6, 5]  # 6.26, 5.59
    assert exponentially(1, 2)(4, 0) == 0


def perceptron(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    norms: list[nn.Module] = [nn.BatchNorm1d(24)] if norm else []
    return nn.Sequential(
        nn.Linear(16, 24, bias=False),
        *norms,
        nn.ReLU(),
        nn.Linear(24, 24, bias=False),
        nn.ReLU(),
        nn.Linear(24, 4, bias=False),
    )


def pruned(algorithm: Algorithm, steps: int = 1) -> tuple[nn.Module, Masking]:
    model = sparsify(perceptron(), 0.8, keep_dense=(), dense_start=True)
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), algorithm)
    torch.manual_seed(1)
    for _ in range(steps):
        model(torch.randn(8, 16)).square().mean().backward(create_graph=masks.wants_graph)
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
    return model, masks


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("regrow", [True, False])
def test_force_of_one_round_is_snip(scope: Scope, regrow: bool) -> None:
    one, _ = pruned(Force(scope, rounds=1, regrow=regrow), steps=3)
    other, _ = pruned(Saliency(scope), steps=3)
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def chain(*weights: list[list[float]]) -> nn.Sequential:
    layers = [nn.Linear(len(w[0]), len(w), bias=False) for w in weights]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.data = torch.tensor(weight)
    return nn.Sequential(*layers)


def flow(model: nn.Module, *shape: int) -> dict[str, Tensor]:
    if not list(masked_weights(model)):
        sparsify_all_(model)
    return synaptic_flow(model, list(masked_weights(model)), Ones.like((torch.zeros(*shape),), {}))


def sparsify_all_(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            mask = torch.ones_like(module.weight, dtype=torch.bool)
            register_mask_(MaskedWeight(f"{path}.weight", module, "weight"), mask, Unstructured())


def test_synaptic_flow_by_hand() -> None:
    """R = 1·(1 + 2) + 2·(3 + .5) = 10, of which a weight has the product of all on its paths; the largest is 7."""
    found = flow(chain([[1.0, -2.0], [3.0, 0.5]], [[-1.0, 2.0]]), 5, 2)
    assert (found["0.weight"] * 7).tolist() == [[1.0, 2.0], [6.0, 1.0]]
    assert (found["1.weight"] * 7).tolist() == [[pytest.approx(3.0), 7.0]]


@pytest.mark.parametrize("norm", [False, True])
def test_synaptic_flow_is_conserved_from_layer_to_layer(norm: bool) -> None:
    """Theorem 2 of arXiv 2006.05467: each layer's scores add up to R, whatever batches a norm has seen."""
    model = perceptron(norm=norm)
    model(torch.randn(32, 16) + 3)
    sums = [float(x.sum()) for x in flow(model, 1, 16).values()]
    assert len(sums) == 3
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-12)


def test_synaptic_flow_leaves_the_model_as_it_was() -> None:
    model = perceptron(norm=True)
    model[3].eval()
    sparsify_all_(model)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    found = flow(model, 1, 16)
    assert all(x.dtype is torch.float64 for x in found.values())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def kept(model: nn.Module) -> list[list[list[int]]]:
    return [weight.mask.int().tolist() for weight in masked_weights(model)]


def test_synflow_prunes_by_what_is_left_in_every_round() -> None:
    """Six weights to two: 4 stay after the first round, and then those on the one path that is left are best."""
    model = chain([[1.0, -2.0], [3.0, 0.5]], [[-1.0, 2.0]])
    sparsify_all_(model)
    first, second = masked_weights(model)
    first.mask.copy_(torch.tensor([[True, False], [False, False]]))
    second.mask.copy_(torch.tensor([[True, False]]))
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), SynFlow("global", rounds=2))
    model(torch.ones(3, 2)).sum().backward()
    masks.step()
    masks.optimizer.step()
    assert kept(model) == [[[0, 0], [1, 0]], [[0, 1]]]
    assert [sum(x.values()) for x in masks.taken.probes] == [6, 4]
    assert model[0].weight.tolist() == [[0.0, 0.0], [3.0, 0.0]]


def test_a_model_that_is_to_be_pruned_without_data_can_be_copied() -> None:
    """As averaged weights do, before the first step and after it."""
    model = sparsify(perceptron(), 0.8, keep_dense=(), dense_start=True)
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), SynFlow())
    for _ in range(2):
        copy.deepcopy(model)(torch.ones(2, 16))
        model(torch.ones(3, 16)).sum().backward()
        masks.step()
        masks.optimizer.step()
    assert masks.density == pytest.approx(0.2, abs=0.01)


def test_synflow_looks_at_no_data() -> None:
    one, _ = pruned(SynFlow())
    torch.manual_seed(7)
    other = sparsify(perceptron(), 0.8, keep_dense=(), dense_start=True)
    masks = Masking(other, optim.SGD(other.parameters(), 0.1), SynFlow())
    (other(torch.randn(3, 16)) - 1).abs().sum().backward()
    masks.step()
    masks.optimizer.step()
    assert kept(one) == kept(other)


def test_synflow_collapses_no_layer() -> None:
    """At so few weights that the smallest would do for none: one of 1024 in each layer of a chain."""
    model = sparsify(chain(*([[0.1 + i * 0.01 + j * 0.001 for i in range(32)] for j in range(32)] for _ in range(4))), 1023 / 1024, keep_dense=(), dense_start=True)  # fmt: skip
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), SynFlow("global"))
    model(torch.ones(2, 32)).sum().backward()
    masks.step()
    masks.optimizer.step()
    assert list(masks.nnz.values()) == [1, 1, 1, 1]
    assert model(torch.ones(1, 32)).any()  # and the four are one path


@pytest.mark.parametrize("algorithm", [GraSP("global"), Force("global", 3), SynFlow("global")])
def test_global_ranking_keeps_the_number_of_all(algorithm: Any) -> None:
    _, each = pruned(type(algorithm)(), steps=12)
    _, masks = pruned(algorithm, steps=12)
    assert sum(masks.nnz.values()) == sum(each.nnz.values())
    assert masks.nnz != each.nnz


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_rounds_that_are_interrupted_go_on_to_the_bit(stop: int) -> None:
    whole, _ = pruned(Force(rounds=4), steps=6)
    model, masks = pruned(Force(rounds=4), steps=stop)
    saved = copy.deepcopy((model.state_dict(), masks.state_dict(), torch.get_rng_state()))
    assert (saved[1]["latent"] is None) == (stop == 4)
    again = sparsify(perceptron(), 0.8, keep_dense=(), dense_start=True)
    with torch.no_grad():
        again[0].weight.mul_(2)
    masks = Masking(again, optim.SGD(again.parameters(), 0.1), Force(rounds=4))
    again.load_state_dict(saved[0])
    masks.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    for _ in range(6 - stop):
        again(torch.randn(8, 16)).square().mean().backward()
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_round_that_is_not_finite_is_made_up_for() -> None:
    model = Quadratic([1.0] * 4, COUPLED, 1)
    masks = Masking(model, optim.SGD(model.parameters(), 0.0), Force(rounds=2))
    for step in range(3):
        model().backward()
        if step == 0:
            assert model.weight.grad is not None
            model.weight.grad[0, 0] = torch.inf
        masks.step()
        if step:  # a scaler skips what is not finite
            masks.optimizer.step()
        masks.optimizer.zero_grad()
    assert masks.density == 0.25
    assert masks.exploration.updates == 1


def stepped(model: nn.Module, algorithm: Algorithm, *inputs: Any, **named: Any) -> None:
    masks = Masking(model, optim.SGD(model.parameters(), 0.1), algorithm)
    model(*inputs, **named).sum().backward()
    masks.step()
    masks.optimizer.step()


def dense(*layers: nn.Module) -> nn.Module:
    return sparsify(nn.Sequential(*layers), 0.5, keep_dense=(), dense_start=True)


REFUSED: Iterable[tuple[Any, Algorithm, Any, str]] = [
    (lambda: dense(nn.Linear(4, 8)), GraSP(), torch.ones(2, 4), r"create_graph=masks\.wants_graph"),
    (lambda: dense(nn.Embedding(9, 4), nn.Linear(4, 8)), SynFlow(), torch.ones(2, 3).long(), "takes token numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "algorithm", "inputs", "says"), REFUSED)
def test_what_cannot_be_computed_is_said(make: Any, algorithm: Algorithm, inputs: Tensor, says: str) -> None:
    with pytest.raises(ift.InputError, match=says):
        stepped(make(), algorithm, inputs)


@pytest.mark.parametrize("make", [lambda: Force(rounds=0), lambda: SynFlow(rounds=0), lambda: GraSP("all")])  # type: ignore[arg-type]
def test_what_cannot_be_is_refused_at_once(make: Any) -> None:
    with pytest.raises(ift.InputError):
        make()


@pytest.mark.parametrize("algorithm", [Saliency(), Saliency("global"), Force(rounds=2), SynFlow(rounds=2)])
def test_weights_that_no_gradient_reaches_are_not_chosen_by_their_index(algorithm: Algorithm) -> None:
    """γ = 0 in the last norm of a residual branch, as recipes of ResNets have it."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch, self.gamma = nn.Linear(8, 8), nn.Linear(8, 8), nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return x + self.gamma * self.branch(x)

    def first_step(gamma: float) -> Masking:
        model = sparsify(Block(), "1/2", keep_dense="none", dense_start=True)
        nn.init.constant_(model.gamma, gamma)
        masks = Masking(model, optim.SGD(model.parameters(), 0.1), algorithm)
        model(torch.randn(4, 8)).square().sum().backward(create_graph=masks.wants_graph)
        masks.step()
        masks.optimizer.step()
        return masks

    assert first_step(1.0).density < 1
    with pytest.raises(
        ift.InputError, match=r"every weight of branch.weight has score 0.*zero_init_residual=false"
    ):
        first_step(0.0)


class Classifies(nn.Module):
    """A network that is called as Hugging Face's image classifiers are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, batch: Any, labels: Tensor | None = None) -> dict[str, Tensor | None]:
        out: Tensor = self.b(self.a(batch["x"]).relu())
        loss = None if labels is None else nn.functional.cross_entropy(out, labels)
        return {"loss": loss, "logits": out}


def test_synaptic_flow_of_a_network_with_a_batch_and_labels() -> None:
    model = sparsify(Classifies(), "1/2", keep_dense="none")
    weights = list(masked_weights(model))
    inputs = Ones.like(({"x": torch.randn(3, 8)},), {"labels": torch.tensor([0, 1, 2])})
    flow = synaptic_flow(model, weights, inputs)
    a, b = (w.parameter.detach().double().abs() for w in weights)
    whole = b * (a.sum(1) + model.a.bias.detach().double().abs())
    assert torch.allclose(flow["b.weight"] / flow["b.weight"].max(), whole / whole.max())
    with pytest.raises(ift.InputError, match="token numbers"):
        synaptic_flow(model, weights, Ones.like((torch.tensor([[1, 2]]),), {}))


def test_scores_that_are_not_numbers_are_refused() -> None:
    bad = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
    one = Layer("weight", bad.abs(), None, None, bad > 0, 1, torch.Generator())
    with pytest.raises(InputError, match="are not numbers"):
        check_told_apart([one], [bad])
