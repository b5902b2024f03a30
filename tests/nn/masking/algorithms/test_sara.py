"""SaRA: every weight computes, the smallest learn, and nothing moves the others."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn, optim

from iftplan.base.errors import InputError
from iftplan.nn import Masking, SaRA, apply, masked_weights, sparsify_, weights_by_layer
from iftplan.nn.masking.step_masks import step_macs
from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.training import batches, loss_of, perceptron, planned


def begun(refresh: int | None = None, seed: int = 0) -> tuple[nn.Module, optim.SGD, Masking]:
    model = apply(planned("wide"), perceptron(), seed=seed, dense_start=True)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    return model, optimizer, Masking(model, optimizer, SaRA(refresh))


def train(model: nn.Module, optimizer: optim.SGD, masks: Masking, steps: range) -> None:
    for number in steps:
        optimizer.zero_grad()
        loss_of(model, next(batches(1, seed=number))).backward()
        masks.step()
        optimizer.step()


def test_only_the_smallest_weights_move_whatever_the_optimizer_does() -> None:
    model, optimizer, masks = begun()
    before = model[2].weight.detach().clone()
    wanted = {layer.weight: layer.nnz for layer in planned("wide").layers if layer.maskable}
    train(model, optimizer, masks, range(6))
    moved = model[2].weight != before
    assert int(moved.sum()) == wanted["2.weight"]
    assert before.abs()[moved].max() <= before.abs()[~moved].min()
    assert not optimizer.state[model[2].weight]["momentum_buffer"][~moved].any()
    assert masks.density == 1
    assert dict(masks.taken.reached or {}) == wanted
    masks.finish()
    assert not (model[2].weight == 0).any()


def test_a_step_costs_dense_passes_and_the_gradients_of_the_chosen() -> None:
    model, optimizer, masks = begun()
    cost = TrainingCost.of(planned("wide"))
    train(model, optimizer, masks, range(1))
    found = step_macs(cost, weights_by_layer(planned("wide"), model), masks.taken, 16)
    assert found == 16 * (2 * cost.opened + cost.forward())


def test_weights_are_chosen_again_among_all_that_are_small_then() -> None:
    model, optimizer, masks = begun(refresh=3)
    train(model, optimizer, masks, range(3))
    value = model[2].weight.detach().clone()
    train(model, optimizer, masks, range(3, 4))
    moved = model[2].weight != value
    assert value.abs()[moved].max() <= value.abs()[~moved].min()
    assert masks.exploration.updates == 1


@pytest.mark.parametrize("stop", [2, 4])
def test_a_resumed_run_ends_at_the_same_bits(stop: int) -> None:
    model, optimizer, masks = begun(refresh=3)
    train(model, optimizer, masks, range(stop))
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), masks.state_dict()))
    train(model, optimizer, masks, range(stop, 8))
    other, again, resumed = begun(refresh=3, seed=1)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    train(other, again, resumed, range(stop, 8))
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("structure", ["unstructured", "2:4"])
def test_the_nuclear_norm_of_the_trained_weights_is_in_the_gradient(structure: str) -> None:
    """λ·∂‖θ⊙M‖ₙ/∂θ on M by autograd, beside the loss's own gradient; a convolution is a matrix of its windows."""
    torch.manual_seed(0)
    model = sparsify_(
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 8)),
        0.5,
        structure=structure,
        keep_dense="none",
        dense_start=True,
    )
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    masks = Masking(model, optimizer, SaRA(nuclear=0.3))
    weights = [weight.parameter for weight in masked_weights(model)]
    model(torch.randn(2, 4, 4, 4)).square().mean().backward()
    own = [weight.grad.clone() for weight in weights]
    masks.step()
    for weight, gradient, name in zip(weights, own, masks.masks(), strict=True):
        chosen = masks.state_dict()["latent"]["trained"][name]
        theta = weight.detach().clone().requires_grad_()
        matrix = (theta * chosen).permute(0, 2, 3, 1) if theta.ndim == 4 else theta * chosen
        (0.3 * torch.linalg.matrix_norm(matrix.flatten(1), "nuc")).backward()
        torch.testing.assert_close(weight.grad, (gradient + theta.grad) * chosen, atol=1e-5, rtol=1e-4)
        assert weight.grad.shape == chosen.shape


def test_what_is_learnt_has_a_smaller_nuclear_norm() -> None:
    found = []
    for nuclear in (0.0, 0.05):
        torch.manual_seed(0)
        model = apply(planned("wide"), perceptron(), seed=0, dense_start=True)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        masks = Masking(model, optimizer, SaRA(nuclear=nuclear))
        train(model, optimizer, masks, range(20))
        trained = model[2].weight * masks.state_dict()["latent"]["trained"]["2.weight"]
        found.append(float(torch.linalg.matrix_norm(trained, "nuc")))
    assert found[1] < 0.9 * found[0]


def test_weights_that_are_not_finite_have_no_singular_vectors() -> None:
    model, optimizer, first = begun()
    first.release()
    masks = Masking(model, optimizer, SaRA(nuclear=0.1))
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    loss_of(model, next(batches(1, seed=0))).backward()
    masks.step()


def test_small_weights_are_told_apart_beside_a_large_one() -> None:
    model = nn.Linear(4, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 3e-9, 1e-9, 2e-9]])
    model.register_buffer("weight_mask", torch.tensor([[True, True, False, False]]))
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    masks = Masking(model, optimizer, SaRA())
    model.weight.grad = torch.ones(1, 4)
    masks.step()
    assert model.weight.grad.tolist() == [[0, 0, 1, 1]]
    masks.release()
    with pytest.raises(InputError, match="plan unstructured masks"):
        Masking(model, optimizer, SaRA(), structure="2:4T")
