"""Low-rank adapters beside sparse weights: what they compute and cost, what stays frozen, merged or kept."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn as tnn

import iftplan as ift
from iftplan import nn
from iftplan.base.errors import InputError
from iftplan.nn.masking.step_masks import step_macs
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.nn.warmstart.adapters import adapter_macs, merged
from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.training import loss_of


class Both(tnn.Module):
    """A strided convolution with padding, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = tnn.Conv2d(2, 4, 1)
        self.conv = tnn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.linear = tnn.Linear(6, 8)
        self.head = tnn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.linear(self.conv(self.stem(x)).relu().mean((2, 3))).relu())


PLAN = ift.plan(ift.read_model(Both(), "1x2x6x6"), None, "1/2")


def applied() -> Any:
    torch.manual_seed(0)
    return nn.apply(PLAN, Both())


def trained(model: tnn.Module, steps: int = 5) -> nn.Masking:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    masks = nn.Masking(model, optimizer)
    torch.manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 2, 6, 6)
        loss_of(model, (x, x[:, 0, 0, :5].argmax(1))).backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
    return masks


def test_nothing_changes_at_first_and_the_sparse_base_never_does() -> None:
    model, x = applied(), torch.randn(3, 2, 6, 6)
    before, base = model(x), copy.deepcopy(model.state_dict())
    nn.add_adapters_(model, 2)
    assert torch.equal(model(x), before)
    assert set(model.state_dict()) - set(base) == {
        f"{layer}.adapter.{part}"
        for layer in ("conv", "linear")
        for part in ("down.weight", "up.weight", "scale")
    }
    trained(model)
    for name in ("conv.weight", "conv.weight_mask", "linear.weight"):
        assert torch.equal(model.state_dict()[name], base[name])
    assert not torch.equal(model.head.weight, base["head.weight"])
    assert model.conv.adapter.up.weight.any()


@pytest.mark.parametrize("where", ["masks", "everywhere"])
def test_merged_within_the_masks_or_everywhere(where: Any) -> None:
    model, x = nn.add_adapters_(applied(), 2, scale=0.5), torch.randn(3, 2, 6, 6)
    trained(model)
    state, before = copy.deepcopy(model.state_dict()), model(x)
    base, mask = model.conv.weight.clone(), model.conv.weight_mask.clone()
    adapter = model.conv.adapter
    product = torch.einsum("or,rihw->oihw", adapter.up.weight.flatten(1), adapter.down.weight) * 0.5
    nn.merge_adapters_(model, where)
    assert not any("adapter" in name for name in model.state_dict())
    assert model.conv.weight.requires_grad
    if where == "everywhere":
        torch.testing.assert_close(model(x), before)
        assert not list(nn.masked_weights(model))
        return
    torch.testing.assert_close(model.conv.weight, base + product * mask)
    assert nn.measure_applied(PLAN, model).passed
    assert all(torch.equal(value, merged(state)[name]) for name, value in model.state_dict().items())


def test_the_ledger_counts_adapters_and_no_gradients_of_frozen_weights() -> None:
    model = nn.add_adapters_(applied(), 3)
    masks = trained(model, 1)
    assert dict(masks.taken.reached or {}) == {"conv.weight": 0, "linear.weight": 0}
    assert adapter_macs(PLAN, model) == 9 * (3 * 36 + 6 * 3) + (3 * 6 + 8 * 3)  # 3×3 positions, and one
    cost = TrainingCost.of(PLAN)
    stem, head = 36 * 2 * 4, 8 * 5
    found = step_macs(cost, nn.weights_by_layer(PLAN, model), masks.taken, 8)
    assert found == 8 * (2 * cost.forward() + stem + head)


def test_what_cannot_have_an_adapter_is_named() -> None:
    model = nn.add_adapters_(applied(), 2, layers=["linear"])
    with pytest.raises(InputError, match="linear has an adapter already"):
        nn.add_adapters_(model, 2, layers=["linear"])
    with pytest.raises(InputError, match="no layer 'body' to put an adapter beside; there are stem"):
        nn.add_adapters_(model, 2, layers=["body"])
    with pytest.raises(InputError, match="rank of 1 or more, not 0"):
        nn.add_adapters_(model, 0)
    with pytest.raises(InputError, match="has no masked layers"):
        nn.add_adapters_(Both(), 1)
    depthwise = tnn.Sequential(tnn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(InputError, match="0: there is no adapter for a Conv2d in 4 groups"):
        nn.add_adapters_(depthwise, 1, layers=["0"])


def moved(model: Any, layer: str) -> Any:
    model.get_submodule(layer).adapter.up.weight.data.normal_()
    return model


@pytest.mark.parametrize("copied", [False, True])
def test_adapters_may_be_put_beside_a_layer_again(copied: bool) -> None:
    torch.manual_seed(0)
    model: Any = tnn.Sequential(tnn.Linear(8, 8))
    x = torch.randn(3, 8)
    for _ in range(3):
        nn.add_adapters_(model, 2, layers=["0"])
        model = copy.deepcopy(model) if copied else model
        before = moved(model, "0")(x)
        nn.merge_adapters_(model, "everywhere")
        torch.testing.assert_close(model(x), before)
    assert not model[0]._forward_hooks


def test_what_cannot_have_an_adapter_leaves_the_model_as_it_was() -> None:
    tied = tnn.Sequential(tnn.Linear(8, 8), tnn.Linear(8, 8))
    tied[1].weight = tied[0].weight
    groups = tnn.Sequential(tnn.Conv2d(4, 4, 1), tnn.Conv2d(4, 4, 3, groups=4))
    own = tnn.Sequential(tnn.Linear(4, 4))
    own[0].adapter = tnn.Linear(4, 4)
    for model, layers, says in (
        (tied, ["1"], "1 shares its weight with 0"),
        (groups, ["*"], "in 4 groups"),
        (own, ["0"], "0 has a module adapter of its own"),
        (tnn.TransformerEncoderLayer(16, 2), ["self_attn.out_proj"], "would never run"),
    ):
        modules = [name for name, _ in model.named_modules()]
        with pytest.raises(InputError, match=says):
            nn.add_adapters_(model, 2, layers=layers)
        assert [name for name, _ in model.named_modules()] == modules
        assert all(p.requires_grad for p in model.parameters())


def test_a_module_that_is_called_adapter_is_none_of_ours() -> None:
    model = tnn.Sequential(tnn.Linear(4, 4))
    model[0].adapter = tnn.Linear(4, 4)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    nn.merge_adapters_(model)
    assert model.state_dict().keys() == state.keys() == merged(state).keys()


def test_condensed_layers_have_no_adapters() -> None:
    model = nn.sparsify(tnn.Sequential(tnn.Linear(16, 16)), "3/4", keep_dense="none")
    nn.add_adapters_(model, 2)
    with pytest.raises(InputError, match="0 has an adapter, which condensed layers have not"):
        nn.condense(model)
    x = torch.randn(3, 16)
    merged_model = nn.merge_adapters_(moved(model, "0"))
    torch.testing.assert_close(nn.condense(merged_model)(x), merged_model(x))


def test_a_square_weight_that_lies_inputs_first_is_merged_so() -> None:
    """GPT-2's projections: a state dict has no other way to tell how they lie."""
    torch.manual_seed(0)
    model = nn.add_adapters_(tnn.Sequential(Conv1D(8, 8)), 2, layers=["0"])
    tnn.init.normal_(model.get_parameter("0.adapter.up.weight"))
    state = copy.deepcopy(model.state_dict())
    nn.merge_adapters_(model)
    found = merged(state)
    assert found.keys() == model.state_dict().keys()
    torch.testing.assert_close(found["0.weight"], model[0].weight)
    again = nn.add_adapters_(tnn.Sequential(Conv1D(8, 8)), 2, layers=["0"])
    again.load_state_dict({name: value for name, value in state.items() if "transposed" not in name})


def test_adapters_beside_branches_and_factors_are_in_the_ledger() -> None:
    for family in ("parallel", "factorized"):
        plan = ift.plan("zoo:digits-cnn", family, "3/4")
        network = nn.add_adapters_(nn.apply(plan, nn.build(plan.model)), 2)
        positions = {layer.name: layer.positions for layer in plan.layers}
        by_hand = 0
        for path, module in network.named_modules():
            if path.endswith(".adapter"):
                owner = next(name for name in positions if f"{path}.".startswith(f"{name}."))
                by_hand += positions[owner] * sum(p.numel() for p in module.parameters())
        assert adapter_macs(plan, network) == by_hand > 0


def test_a_layer_with_an_adapter_may_be_called_by_name() -> None:
    model = nn.add_adapters_(tnn.Sequential(tnn.Linear(4, 3)), 2, layers="0")
    x = torch.randn(5, 4)
    assert torch.equal(model[0](input=x), model(x))
    nn.merge_adapters_(model)
    assert not model[0]._forward_hooks_with_kwargs


def test_a_masked_layer_without_a_weight_of_its_own_is_named() -> None:
    model = nn.sparsify(tnn.TransformerEncoderLayer(16, 2), 0.5, keep_dense="none")
    with pytest.raises(InputError, match="self_attn: there is no adapter for a MultiheadAttention"):
        nn.add_adapters_(model, 2)
