"""LAMB: its step by hand, and under masks the same step as of a network that has the active weights alone."""

from __future__ import annotations

import torch
from torch import nn

from iftplan.nn.application.apply import apply
from iftplan.nn.masking.masking import Masking
from iftplan.nn.training.optimization.lamb import Lamb
from iftplan.nn.training.optimization.optimizers import optimizer_of
from iftplan.runs.settings import OptimizerConfig
from tests.support.models.applied import perceptron, planned


def test_two_steps_by_hand() -> None:
    """arXiv 1904.00962, algorithm 2, with bias correction, θ = (3, 4), λ = .1, η = .1."""
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    optimizer = Lamb([weight], lr=0.1, betas=(0.5, 0.5), eps=0.0, weight_decay=0.1)
    weight.grad = torch.tensor([[1.0, -2.0]])
    optimizer.step()
    # the first direction is the sign, u = (1.3, -.6), ‖θ‖/‖u‖ = 5/√2.05 = 3.492151
    torch.testing.assert_close(weight.detach(), torch.tensor([[2.546020, 4.209529]]), rtol=0, atol=2e-6)
    weight.grad = torch.tensor([[1.0, 1.0]])
    optimizer.step()
    # m̂ = (1, 0), v̂ = (1, 2): u = (1.254602, .420953), ‖θ‖ = 4.919589, ‖u‖ = 1.323340
    torch.testing.assert_close(weight.detach(), torch.tensor([[2.079615, 4.053037]]), rtol=0, atol=2e-6)


def test_without_decay_it_takes_the_step_of_adam() -> None:
    biases = [nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2)]
    lamb, adam = Lamb(biases[:1], lr=0.01), torch.optim.Adam(biases[1:], lr=0.01, eps=1e-6)
    for step in range(5):
        for bias, optimizer in zip(biases, (lamb, adam), strict=True):
            bias.grad = torch.tensor([0.3 * step, 1.0])
            optimizer.step()
    torch.testing.assert_close(*biases)


def test_norms_are_those_of_the_active_weights() -> None:
    """The active weights of a masked layer, as a dense row of their own, take the same steps."""
    model = apply(planned("perceptron", "wide"), perceptron())
    masked = next(m for m in model.modules() if hasattr(m, "weight_mask"))
    mask, weight = masked.get_buffer("weight_mask"), masked.get_parameter("weight")
    alone = nn.Parameter(weight.detach()[mask].view(1, -1).clone())
    ours, other = (Lamb([p], lr=0.1, weight_decay=0.1) for p in (weight, alone))
    model.requires_grad_(False)
    weight.requires_grad_(True)
    masks = Masking(model, ours)
    torch.manual_seed(0)
    for _ in range(4):
        gradient = torch.randn_like(weight)
        weight.grad, alone.grad = gradient.clone(), gradient[mask].view(1, -1)
        masks.step()
        ours.step()
        other.step()
    torch.testing.assert_close(weight.detach()[mask].view(1, -1), alone.detach(), rtol=1e-6, atol=1e-7)
    for slot in (weight, ours.state[weight]["exp_avg"], ours.state[weight]["exp_avg_sq"]):
        assert not slot.detach()[~mask].any()


def test_a_run_can_name_it_and_its_state_is_taken_up() -> None:
    network = nn.Linear(3, 2)
    plan = planned("perceptron", "wide")
    config = OptimizerConfig("lamb", lr=0.1, weight_decay=0.01)
    optimizers = [optimizer_of(config, plan, network, dense=True)]
    assert isinstance(optimizers[0], Lamb)
    assert [group["weight_decay"] for group in optimizers[0].param_groups] == [0.01, 0.0]
    weights = []
    for resumed in (False, True):
        torch.manual_seed(0)
        nn.init.ones_(network.weight)
        nn.init.zeros_(network.bias)
        optimizer = optimizer_of(config, plan, network, dense=True)
        for step in range(4):
            if resumed and step == 2:
                state = optimizer.state_dict()
                optimizer = optimizer_of(config, plan, network, dense=True)
                optimizer.load_state_dict(state)
            network(torch.randn(5, 3)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(network.weight.detach().clone())
    assert torch.equal(*weights)


def test_from_zero_weights_it_takes_the_step_of_adam() -> None:
    weight = nn.Parameter(torch.zeros(1, 2))
    optimizer = Lamb([weight], lr=0.5, weight_decay=0.1)
    weight.grad = torch.tensor([[1.0, -3.0]])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[-0.5, 0.5]]), rtol=1e-5, atol=0)
