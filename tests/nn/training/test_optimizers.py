"""The optimizer of a run: fused where that can be, decay where it belongs, the steps that plain Adam takes."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn
from torch.optim import Adam, AdamW

from iftplan.base.errors import InputError
from iftplan.nn.training import setup
from iftplan.nn.training.from_checkpoint import checkpoint_at
from iftplan.nn.training.optimization.optimizers import optimizer_of
from iftplan.nn.training.parallel.engine import engine_for
from iftplan.runs.settings import OptimizerConfig, TrainingConfig
from tests.support.models.applied import planned
from tests.support.runs.executed import executed, small_run

CONFIG = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1)


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW)])
def test_adam_is_fused_unless_gradients_are_scaled(name: Literal["adam", "adamw"], kind: type) -> None:
    network = nn.Linear(3, 2)
    config = OptimizerConfig(name=name)
    optimizer = optimizer_of(config, planned("perceptron", "wide"), network, dense=True)
    scaled = optimizer_of(config, planned("perceptron", "wide"), network, dense=True, scaled=True)
    assert type(optimizer) is kind
    assert {group["fused"] for group in optimizer.param_groups} == {True}
    assert {group["fused"] for group in scaled.param_groups} == {None}


def test_fused_steps_are_those_of_plain_adamw() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 1))
    other = copy.deepcopy(network)
    ours = optimizer_of(CONFIG, planned("perceptron", "wide"), network, dense=True)
    decays = [p for p in other.parameters() if p.ndim >= 2]
    rest = [p for p in other.parameters() if p.ndim < 2]
    plain = AdamW(
        [{"params": decays, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=0.01,
        foreach=False,
    )
    for _ in range(20):
        x = torch.randn(7, 6)
        for model, optimizer in ((network, ours), (other, plain)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_scaled_gradients_can_be_clipped() -> None:
    fabric = Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu"))
    model = fabric.setup_module(nn.Linear(3, 2))
    config = OptimizerConfig(name="adamw", clip=0.5)
    plan = planned("perceptron", "wide")
    optimizer: Any = fabric.setup_optimizers(optimizer_of(config, plan, model, dense=True, scaled=True))
    fabric.backward(model(torch.ones(4, 3)).mean())
    fabric.clip_gradients(model, optimizer, max_norm=config.clip)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(gradients.norm(), torch.tensor(0.5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize(
    "settings",
    [
        {"method": {"name": "srste", "pull": 0.05}, "plan": {"mask": "2:4", "sparsity": "1/2", "transform": "none"}},
        {"method": {"name": "mest", "interval": 3}},
    ],
)  # fmt: skip
def test_what_methods_add_to_gradients_is_in_their_own_scale(
    settings: Any, clip: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power of two scales the loss; in float32 it scales every gradient without rounding, and nothing may come of it."""
    found = []
    for init_scale in (16.0, 2048.0):
        plugin = ScaledFloats("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=init_scale))
        monkeypatch.setattr(setup, "engine_for", partial(_fabric, plugin))
        precision = {"training": {"precision": "16-mixed", "steps": 8}, "optimizer": {"clip": clip}}
        directory = tmp_path / str(init_scale)
        executed(small_run({**settings, **precision}), directory)
        found.append(checkpoint_at(directory, print)[1]["model"])
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name


class ScaledFloats(MixedPrecision):
    """The scaler of half precision, without half precision."""

    def forward_context(self) -> Any:
        return nullcontext()

    def convert_input(self, data: Any) -> Any:
        return data


def _fabric(plugin: MixedPrecision, *_: object) -> Fabric:
    return Fabric(accelerator="cpu", devices=1, plugins=plugin)


def test_half_precision_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(InputError, match="16-mixed, which needs a GPU"):
        engine_for(TrainingConfig(precision="16-mixed"))
