"""The network of a run: what its settings put inside the members."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.nn.layers.branches import Factorized
from iftplan.nn.sources.zoo.gpt2 import GPT2LMHeadModel, GPT2Sizes
from iftplan.nn.training.network import network_of
from iftplan.nn.training.parallel import engine
from iftplan.nn.training.parallel.arrangement import Arrangement, large_modules
from iftplan.nn.training.parallel.engine import precision_for
from iftplan.nn.training.parallel.recomputation import recompute_
from iftplan.runs.settings import MethodConfig, PlanConfig, RunConfig, TrainingConfig

DIGITS = "zoo:digits-cnn"


@pytest.mark.parametrize(("nonlinear", "inside"), [(True, {nn.BatchNorm2d, nn.ReLU}), (False, set())])
def test_members_have_an_activation_inside_unless_asked_not_to(
    nonlinear: bool, inside: set[type[nn.Module]]
) -> None:
    config = RunConfig(plan=PlanConfig(nonlinear=nonlinear), method=MethodConfig("densified"))
    plan = ift.plan(ift.read_model(DIGITS), "lowrank", "3/4")
    network = network_of(config, plan, DIGITS)
    members = [module for module in network.modules() if isinstance(module, Factorized)]
    assert members
    for member in members:
        kinds = {type(module) for module in member.nonlinearity.modules()}
        assert kinds - {nn.Sequential, nn.Identity} == inside
    dense = network_of(replace(config, method=MethodConfig("dense")), plan, DIGITS)
    assert {type(x) for x in dense.modules()} >= {nn.BatchNorm2d, nn.ReLU}


# --- several processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "world", "says"),
    [
        ({"tensor_parallel": 2}, 4, "training.tensor_parallel arranges processes that hold parts"),
        ({"replicas": 2}, 1, "set training.strategy=fsdp"),
        ({"tensor_parallel": 2, "strategy": "fsdp"}, 3, "start a multiple of 2 processes"),
        ({"tensor_parallel": 2, "replicas": 3, "strategy": "fsdp"}, 4, "start a multiple of 6 processes"),
    ],
)
def test_processes_that_cannot_be_arranged_are_refused(
    changed: dict[str, Any], world: int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Arrangement.of(TrainingConfig(**changed), world)


def test_processes_that_share_layers_see_the_same_samples() -> None:
    config = TrainingConfig(tensor_parallel=2, strategy="fsdp")
    arranged = Arrangement.of(config, 8)
    assert (arranged.data, [arranged.share(rank) for rank in range(8)]) == (4, [0, 0, 1, 1, 2, 2, 3, 3])
    assert Arrangement.of(config, 1) == Arrangement()  # one process continues what several began


def test_tied_weights_are_gathered_with_the_whole_model() -> None:
    """FSDP2 refuses weights that two of its groups share; embedding and head have 2¹⁶ weights here."""
    model = GPT2LMHeadModel(GPT2Sizes(layers=1, width=256, heads=2, vocabulary=256, context=8))
    names = {module: name for name, module in model.named_modules()}
    found = {names[module] for module in large_modules(model)}
    block = "transformer.h.0"
    assert found == {f"{block}.{name}" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}


def test_recomputed_blocks_have_the_same_gradients_and_names() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Sizes(layers=2, width=16, heads=2, vocabulary=32, context=8)).double()
    again, tokens, calls = recompute_(deepcopy(model)), torch.arange(8).view(1, 8), []
    again.transformer.h[1].attn.register_forward_hook(lambda *_: calls.append(0))
    for network in (model, again):
        torch.manual_seed(1)
        network(tokens).logits.square().sum().backward()
    assert len(calls) == 2
    assert model.state_dict().keys() == again.state_dict().keys()
    for (name, one), (other_name, other) in zip(
        model.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("fast", [True, False])
def test_kernels_of_masks_choose_the_precision_that_they_have(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "has_fast_bf16", lambda: fast)
    assert precision_for(TrainingConfig()) == ("bf16-mixed" if fast else "32-true")
    assert precision_for(TrainingConfig(execution="sparse")) == "32-true"
    assert precision_for(TrainingConfig(execution="compact", precision="bf16-mixed")) == "bf16-mixed"
