"""Experts in the place of a feed-forward block, held against loops over tokens and experts."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from iftplan.base.errors import InfeasibleError
from iftplan.families.transforms.experts import Mixture
from iftplan.nn.layers.mixture import CHUNK, MixtureOfExperts, auxiliary_loss, chunk_loss, locality_loss
from iftplan.nn.layers.stacks import StackedLinear

WIDTH, HIDDEN, TOKENS = 12, 20, 30


class Plain(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.act(self.up(x)))
        return found


class Gated(nn.Module):
    """Three layers without biases, one of them a gate."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(WIDTH, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return found


def made(
    mixture: Mixture, block: type[Plain] | type[Gated] = Plain, hidden: int = HIDDEN
) -> MixtureOfExperts:
    torch.manual_seed(0)
    host = block()
    names = [name for name, part in host.named_children() if isinstance(part, nn.Linear)]
    widths = {name: (hidden, WIDTH) if name == "down" else (WIDTH, hidden) for name in names}
    return MixtureOfExperts(host, mixture, widths, WIDTH)


def expert(experts: MixtureOfExperts, i: int, block: type[Plain] | type[Gated]) -> nn.Module:
    """One expert as a block of its own."""
    down = experts.get_submodule("down")
    assert isinstance(down, StackedLinear)
    alone = block(down.in_features)
    for name, part in alone.named_children():
        if isinstance(part, nn.Linear):
            stack = experts.get_submodule(name)
            part.weight.data.copy_(stack.weight[i])
            if part.bias is not None:
                part.bias.data.copy_(stack.bias[i])
    return alone


def by_hand(experts: MixtureOfExperts, x: Tensor, block: type[Plain] | type[Gated]) -> Tensor:
    """The same, token by token and expert by expert."""
    mixture, alone = experts.mixture, [expert(experts, i, block) for i in range(experts.mixture.experts)]
    tokens = x.reshape(-1, WIDTH)
    scores = experts.router(tokens).softmax(-1)
    room = mixture.rows_per_expert(len(tokens))
    taken, out = [0] * mixture.experts, torch.zeros_like(tokens)
    chosen = [row.topk(mixture.top_k) for row in scores]
    for t, (weights, places) in enumerate(chosen):
        total = weights.sum() if mixture.top_k > 1 else torch.tensor(1.0)
        for weight, i in zip(weights, places.tolist(), strict=True):
            if mixture.capacity is not None and taken[i] == room:
                continue
            taken[i] += 1
            out[t] += weight / total * alone[i](tokens[t])
    if experts.shared is not None:
        out = out + experts.shared(tokens)
    return out.view_as(x)


@pytest.mark.parametrize("block", [Plain, Gated])
@pytest.mark.parametrize(
    "mixture",
    [
        Mixture(4, 1),
        Mixture(5, 2),
        Mixture(3, 3),
        Mixture(4, 2, shared=2),
        Mixture(4, 1, capacity=Fraction(1)),
        Mixture(5, 2, shared=1, capacity=Fraction(1, 2)),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_loops(mixture: Mixture, block: type[Plain] | type[Gated]) -> None:
    experts = made(mixture, block)
    x = torch.randn(3, TOKENS // 3, WIDTH, requires_grad=True)
    found, expected = experts(x), by_hand(experts, x, block)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    (by_loop,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(gradient, by_loop)


@pytest.mark.parametrize("mixture", [Mixture(4, 2, ungated=True), Mixture(5, 1, shared=2, ungated=True)])
def test_ungated_experts_of_a_gated_block_have_swish_between_two_matrices(mixture: Mixture) -> None:
    torch.manual_seed(0)
    widths = {"gate": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
    experts = MixtureOfExperts(Gated(), mixture, widths, WIDTH, removed=["up"])
    assert {n.rpartition(".")[0].rpartition(".")[2] for n, _ in experts.named_parameters()} == {
        "gate",
        "down",
        "router",
    }
    x = torch.randn(TOKENS, WIDTH)
    weights = experts.router(x).softmax(-1)
    top = weights.topk(mixture.top_k)
    share = torch.zeros_like(weights).scatter(1, top.indices, top.values)
    share = share / share.sum(-1, keepdim=True) if mixture.top_k > 1 else share
    first, last = experts.get_parameter("gate.weight"), experts.get_parameter("down.weight")
    hidden = nn.functional.silu(torch.einsum("tm,ehm->teh", x, first))
    expected = torch.einsum("te,teh,emh->tm", share, hidden, last)
    if mixture.shared:
        first, last = (experts.get_parameter(f"shared.{name}.weight") for name in ("gate", "down"))
        assert first.shape == (mixture.shared * HIDDEN, WIDTH)
        expected = expected + nn.functional.silu(x @ first.T) @ last.T
    torch.testing.assert_close(experts(x), expected)
    torch.testing.assert_close(copy.deepcopy(experts)(x), expected)


@pytest.mark.parametrize("block", [Plain, Gated])
def test_one_expert_that_every_token_meets_is_the_dense_block(block: type[Plain] | type[Gated]) -> None:
    experts = made(Mixture(1, 1), block)
    x = torch.randn(7, WIDTH)
    torch.testing.assert_close(experts(x), expert(experts, 0, block)(x))


def test_a_relu_router_has_every_expert_of_a_score_above_zero() -> None:
    experts = made(Mixture(6, 2, router="relu"))
    x = torch.randn(TOKENS, WIDTH)
    scores = experts.scores(experts.router(x))
    logits = experts.router(x).relu()
    torch.testing.assert_close(scores, logits / (logits.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    outputs = torch.stack([expert(experts, i, Plain)(x) for i in range(6)])
    torch.testing.assert_close(experts(x), torch.einsum("te,etw->tw", scores, outputs))
    assert float(experts.active or 0) == pytest.approx(float((scores > 0).sum()) / TOKENS)


def test_the_balancing_loss_is_switch_s_and_is_taken_once() -> None:
    experts = made(Mixture(4, 2))
    x = torch.randn(TOKENS, WIDTH)
    experts(x)
    probabilities = experts.router(x).softmax(-1)
    chosen = torch.nn.functional.one_hot(probabilities.topk(2).indices, 4).float().sum(1)
    share = chosen.sum(0) / chosen.sum()
    loss = auxiliary_loss(experts)
    assert isinstance(loss, Tensor)
    torch.testing.assert_close(loss, 0.01 * 4 * (share * probabilities.mean(0)).sum())
    assert loss.requires_grad
    assert auxiliary_loss(experts) == 0
    experts.eval()(x)
    assert auxiliary_loss(experts) == 0


def test_an_even_spread_costs_the_coefficient() -> None:
    experts = made(Mixture(5, 5, balance=Fraction(1, 10)))
    experts(torch.randn(TOKENS, WIDTH))
    assert float(auxiliary_loss(experts)) == pytest.approx(0.1)


def test_experts_are_copied_pickled_and_set_to_a_mode_with_all_their_parts() -> None:
    experts = made(Mixture(4, 2, shared=1))
    x = torch.randn(TOKENS, WIDTH)
    first = experts(x)
    for other in (copy.deepcopy(experts), pickle.loads(pickle.dumps(experts))):  # noqa: S301
        torch.testing.assert_close(other(x), first)
        other.get_submodule("up").weight.data.zero_()
        assert not torch.allclose(other(x), first)
        torch.testing.assert_close(experts(x), first)
        assert other.eval().host[0].training is False
    assert experts.host[0].training is True
    names = dict(experts.named_parameters())
    assert names["up.weight"].shape == (4, HIDDEN, WIDTH)
    assert names["shared.down.weight"].shape == (WIDTH, HIDDEN)
    assert {name.partition(".")[0] for name in names} == {"up", "down", "router", "shared"}


def test_a_block_with_a_part_of_the_router_s_name_is_refused() -> None:
    host = Plain()
    host.router = nn.Identity()
    with pytest.raises(InfeasibleError, match="'router'"):
        MixtureOfExperts(host, Mixture(2, 1), {"up": (WIDTH, 4), "down": (4, WIDTH)}, WIDTH)


def test_neighbours_that_meet_the_same_experts_cost_less() -> None:
    steady = torch.randn(1, 1, 6).expand(2, 2 * CHUNK, 6)
    moving = torch.randn(2, 2 * CHUNK, 6)
    assert locality_loss(steady) < locality_loss(moving)
    assert chunk_loss(steady.relu()) < chunk_loss(moving.relu())
    here, after = (100 * moving[:, :-1]).sigmoid(), (100 * moving[:, 1:]).sigmoid()
    torch.testing.assert_close(
        locality_loss(moving),
        nn.functional.binary_cross_entropy(here.clamp(1e-38, 1), after),
        rtol=0.02,
        atol=0,
    )
    shares = moving.relu() / moving.relu().sum(-1, keepdim=True)
    union = 1 - (1 - shares.view(2, 2, CHUNK, 6)).prod(2)
    torch.testing.assert_close(chunk_loss(moving.relu()), union.mean(), rtol=1e-3, atol=1e-3)


def test_losses_of_neighbours_are_added_as_they_are_asked_for() -> None:
    x = torch.randn(2, 2 * CHUNK, WIDTH)
    found = []
    for mixture in (
        Mixture(6, 2, router="relu"),
        Mixture(6, 2, router="relu", locality=Fraction(1, 2)),
        Mixture(6, 2, router="relu", chunks=Fraction(1, 4)),
    ):
        experts = made(mixture)
        experts(x)
        found.append(auxiliary_loss(experts))
    logits = experts.router(x)
    torch.testing.assert_close(found[1] - found[0], locality_loss(logits) / 2)
    assert experts.scores is not None
    torch.testing.assert_close(found[2] - found[0], chunk_loss(experts.scores(logits)) / 4)
