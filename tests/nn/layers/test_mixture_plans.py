"""Plans of mixtures of experts, applied to networks and audited by three engines."""

from __future__ import annotations

import pytest
import torch

import iftplan as ift
from iftplan import nn as inn
from iftplan.base.errors import InputError
from iftplan.nn.application.audit import audit
from iftplan.nn.layers.mixture import MixtureOfExperts
from iftplan.nn.sources import build
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Role, Scope

ENGINES = ("meta", "fvcore", "flop_counter")


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("zoo:gpt3-small", "experts:8x2"),
        ("zoo:vit-b16", "experts:8x2"),
        ("zoo:vit-b16", "experts:16x1+1:capacity=1.25"),
        ("zoo:gpt-char", "experts:1x1"),
        ("zoo:gpt-char", "experts:40x4:relu"),
    ],
)
def test_the_structure_costs_what_was_planned(model: str, family: str) -> None:
    plan = ift.plan(model, family)
    report = audit(plan, engines=ENGINES)
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}
    assert all(layer.agrees for layer in report.layers)


@pytest.mark.parametrize("family", ["experts:8x2", "experts:4x1+1:capacity=1"])
def test_an_applied_network_costs_what_was_planned(family: str) -> None:
    plan = ift.plan("zoo:gpt-char", family)
    dense = build("zoo:gpt-char", device="cpu")
    applied = inn.apply(plan, dense, seed=1)
    report = inn.measure_applied(plan, applied, engines=ENGINES)
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}
    blocks = [module for module in applied.modules() if isinstance(module, MixtureOfExperts)]
    assert len(blocks) == 4
    assert all(type(dense.get_submodule(f"transformer.h.{i}.mlp")).__name__ == "GPT2MLP" for i in range(4))
    tokens = torch.arange(128).view(1, -1)
    assert torch.isfinite(applied(tokens).logits).all()
    again = inn.apply(plan, dense, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(applied.parameters(), again.parameters(), strict=True))


def test_dense_weights_cannot_be_carried_over_to_experts() -> None:
    plan = ift.plan("zoo:gpt-char", "experts:8x2")
    dense = build("zoo:gpt-char", device="cpu")
    with pytest.raises(InputError, match="Train them from scratch"):
        inn.warm_start_(inn.apply(plan, dense), dense, plan)


def test_gated_blocks_of_transformers_have_gated_experts() -> None:
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    dense = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **heads))
    plan = ift.plan(dense, "experts:4x2+1", inputs="2x11:int64")
    assert sum(layer.role is Role.TRANSFORMED for layer in plan.layers) == 2 * 3
    report = inn.measure_applied(plan, inn.apply(plan, dense), engines=ENGINES)
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}


def test_experts_without_the_gate_of_their_block() -> None:
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 50}
    dense = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, num_attention_heads=4))
    plan = ift.plan(dense, "experts:6x2+1:relu:ungated", inputs="2x11:int64")
    assert sum(layer.role is Role.REMOVED for layer in plan.layers) == 2
    assert parse_plan(plan_document(plan)) == plan
    model = inn.apply(plan, dense)
    block = model.get_submodule("model.layers.0.mlp")
    assert set(dict(block.named_children())) >= {"gate_proj", "down_proj", "router", "shared"}
    assert "up_proj" not in dict(block.named_children())
    report = inn.measure_applied(plan, model, engines=ENGINES)
    assert report.passed, report.problems
    assert set(report.counters.values()) == {plan.macs(Scope.MODEL)}
    assert audit(plan, dense, engines=ENGINES).passed
    tokens = torch.arange(22).view(2, 11)
    optimizer, losses = torch.optim.AdamW(model.train().parameters(), lr=3e-3), []
    for _ in range(100):
        loss = torch.nn.functional.cross_entropy(model(tokens).logits.flatten(0, 1), tokens.flatten())
        optimizer.zero_grad()
        (loss + inn.auxiliary_loss(model)).backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2


def test_experts_begin_at_the_scale_of_the_layers_that_they_replace() -> None:
    dense = build("zoo:gpt-char", device="cpu")
    applied = inn.apply(ift.plan("zoo:gpt-char", "experts:8x2+1"), dense)
    for block in range(4):
        for name, fan in (("c_fc", 1.0), ("c_proj", 2.0)):
            path = f"transformer.h.{block}.mlp"
            own = float(dense.get_parameter(f"{path}.{name}.weight").std())
            new = applied.get_parameter(f"{path}.{name}.weight")
            inputs = new.shape[2]
            before = 128 if fan == 1 else 512
            assert float(new.std()) == pytest.approx(own * (before / inputs) ** 0.5, rel=0.05)
            shared = applied.get_parameter(f"{path}.shared.{name}.weight")
            assert float(shared.std()) == pytest.approx(own * (before / shared.shape[1]) ** 0.5, rel=0.05)


def test_a_weight_that_happens_to_be_zero_is_a_weight() -> None:
    """Nothing is masked in a mixture, so no cost depends on values."""
    dense = build("zoo:gpt-char", device="cpu")
    plan = ift.plan(ift.read_model("zoo:gpt-char"), "experts:4x1")
    network = inn.apply(plan, dense)
    stacked = next(p for p in network.parameters() if p.dim() == 3)
    with torch.no_grad():
        stacked[0, 0, 0] = 0
    report = ift.audit(network, plan)
    assert report.passed
    assert report.deviation == 0
