"""The linear layer of GPT-2, whose weight is (inputs, outputs), in sparse execution: ours and transformers'."""

import copy
import csv
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D as TransformersConv1D

import iftplan as ift
import iftplan.nn as ift_nn
from iftplan.nn.execution.compaction import compact_, expand_
from iftplan.nn.execution.conv1d import CompactConv1D, SparseConv1D
from iftplan.nn.execution.execute import dense_gradients_, execute_dense_, execute_sparse_
from iftplan.nn.execution.transformers_conv1d import CompactTransformersConv1D, SparseTransformersConv1D
from iftplan.nn.export.finalize import finalize
from iftplan.nn.masking.algorithms.exchange.rigl import RigL
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masks.masked_weights import enforce_
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.nn.training.execution import run_sparse_
from iftplan.runs.schedules import Updates
from iftplan.runs.settings import MethodConfig, RunConfig, TrainingConfig
from tests.support.cli_runs import many
from tests.support.models.applied import host, planned

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")


Dense = type[Conv1D | TransformersConv1D]
BOTH: list[Dense] = [Conv1D, TransformersConv1D]
SPARSE = {Conv1D: SparseConv1D, TransformersConv1D: SparseTransformersConv1D}
COMPACT = {Conv1D: CompactConv1D, TransformersConv1D: CompactTransformersConv1D}


def network(dense: Dense, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Sizes that no vector divides, and blocks of four outputs."""
    torch.manual_seed(0)
    net = nn.Sequential(dense(37, 13), nn.GELU(), dense(24, 37), nn.GELU(), dense(5, 24))
    net[0].register_buffer("weight_mask", torch.rand(13, 37) < 0.3)
    net[2].register_buffer("weight_mask", (torch.rand(37, 6) < 0.3).repeat_interleave(4, 1))
    with torch.no_grad():
        for index in (0, 2, 4):
            net[index].weight.mul_(20)
            net[index].bias.normal_()
    enforce_(net.to(dtype))
    return net


def tokens(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 13, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dense", BOTH)
def test_a_model_computes_what_it_did_and_goes_back(dense: Dense) -> None:
    model = network(dense)
    sparse = execute_sparse_(copy.deepcopy(model))
    assert [type(sparse[i]) for i in (0, 2, 4)] == [SPARSE[dense], SPARSE[dense], dense]
    same = tokens().requires_grad_()
    x = tokens().permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()  # the dense layer cannot
    found, expected = sparse(x), model(same)
    torch.testing.assert_close(found, expected)
    for y in (found, expected):
        y.square().sum().backward()
    torch.testing.assert_close(x.grad, same.grad)
    for index in (0, 2):
        off = ~model[index].weight_mask
        torch.testing.assert_close(sparse[index].weight.grad, model[index].weight.grad.masked_fill(off, 0))
        torch.testing.assert_close(sparse[index].bias.grad, model[index].bias.grad)
    assert sparse.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(copy.deepcopy(sparse)(tokens()), expected)
    assert [type(module) for module in execute_dense_(sparse)] == [type(module) for module in model]


@pytest.mark.parametrize("dense", BOTH)
def test_training_under_masks_that_move_is_the_same_training(dense: Dense) -> None:
    models = (network(dense), execute_sparse_(network(dense)))
    losses: tuple[list[float], list[float]] = ([], [])
    before = network(dense)[0].get_buffer("weight_mask")
    for model, told in zip(models, losses, strict=True):
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-3)
        masks = Masking(model, optimizer, RigL(Updates(end=9, interval=2)))
        for step in range(9):
            dense_gradients_(model, masks.wants_dense_gradient)
            loss = nn.functional.cross_entropy(model(tokens() + step).flatten(0, 1), torch.arange(6) % 5)
            loss.backward()
            masks.step()
            optimizer.step()
            optimizer.zero_grad()
            told.append(float(loss.detach()))
        assert masks.exploration.updates >= 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    assert not torch.equal(models[1].get_buffer("0.weight_mask"), before)
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dense", BOTH)
def test_compact_training_is_the_same_training_and_comes_back(dense: Dense) -> None:
    models = network(dense), compact_(network(dense))
    assert [type(models[1][i]) for i in (0, 2, 4)] == [COMPACT[dense], COMPACT[dense], dense]
    losses = []
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.1)
        masks = Masking(model, optimizer) if model is models[0] else None
        for step in range(4):
            loss = nn.functional.cross_entropy(model(tokens() + step).flatten(0, 1), torch.arange(6) % 5)
            loss.backward()
            losses.append(float(loss.detach()))
            if masks is not None:
                masks.step()
            optimizer.step()
            optimizer.zero_grad()
    assert losses[:4] == pytest.approx(losses[4:], rel=1e-9)
    masked, back = models[0], expand_(models[1])
    assert [type(module) for module in back] == [type(module) for module in masked]
    assert list(back.state_dict()) == list(masked.state_dict())
    for name, value in masked.state_dict().items():
        found = back.state_dict()[name]
        assert found.stride() == value.stride()
        torch.testing.assert_close(found, value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dense", BOTH)
def test_finalized_models_run_frozen_and_do_not_look_at_weights_again(dense: Dense) -> None:
    model = finalize(network(dense, torch.float32)).eval()
    x = tokens(torch.float32)
    expected = model(x)
    frozen = execute_sparse_(copy.deepcopy(model), frozen=True)
    assert isinstance(frozen[0], SPARSE[dense]) and type(frozen[4]) is dense
    with torch.no_grad():
        frozen[2].weight.zero_()
    torch.testing.assert_close(frozen(x), expected)


def test_a_planned_gpt2_runs_and_trains_sparse() -> None:
    plan = planned("GPT-2", "wide", "3/4")
    masked = ift_nn.apply(plan, host("GPT-2")).eval()
    sparse, frozen = (
        execute_sparse_(copy.deepcopy(masked)),
        execute_sparse_(finalize(masked), frozen=True),
    )
    kinds = [type(module) for module in sparse.modules()]
    transformed = sum(layer.role.value == "transformed" and layer.maskable > 0 for layer in plan.layers)
    assert kinds.count(SparseTransformersConv1D) == transformed > 4
    words = torch.arange(18).view(2, 9) % 50
    expected = masked(words, labels=words)
    for model in (sparse, frozen):
        found = model(words, labels=words)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    expected.loss.backward()
    sparse(words, labels=words).loss.backward()
    wanted = dict(masked.named_parameters())
    for name, parameter in sparse.named_parameters():
        kept = sparse.state_dict().get(f"{name}_mask", torch.ones_like(parameter, dtype=torch.bool))
        torch.testing.assert_close(parameter.grad * kept, wanted[name].grad * kept, rtol=1e-3, atol=1e-5)


def test_a_training_run_takes_it() -> None:
    engine: Any = SimpleNamespace(
        _precision=SimpleNamespace(precision="32-true"), device=SimpleNamespace(type="cpu")
    )
    config = RunConfig(method=MethodConfig(name="rigl"), training=TrainingConfig(execution="sparse"))
    model = ift_nn.apply(planned("GPT-2", "wide", "3/4"), host("GPT-2"))
    assert any(
        isinstance(module, SparseTransformersConv1D)
        for module in run_sparse_(model, config, engine).modules()
    )


def test_a_bundled_gpt_runs_and_trains_sparse() -> None:
    plan = ift.plan(ift.read_model("zoo:gpt-char"), "wide", "3/4")
    torch.manual_seed(0)
    masked = ift_nn.apply(plan, ift_nn.build("zoo:gpt-char", device="cpu")).eval()
    words = torch.arange(18).view(2, 9)
    expected = masked(words).logits
    sparse = execute_sparse_(copy.deepcopy(masked))
    assert sum(isinstance(module, SparseConv1D) for module in sparse.modules()) == 16
    torch.testing.assert_close(sparse(words).logits, expected, rtol=1e-4, atol=1e-5)
    compact = compact_(copy.deepcopy(masked))
    assert sum(isinstance(module, CompactConv1D) for module in compact.modules()) == 16
    torch.testing.assert_close(compact(words).logits, expected, rtol=1e-4, atol=1e-5)


def test_nobody_waits_for_transformers_who_has_no_such_layer() -> None:
    code = """
import sys, torch, iftplan.nn as ift_nn
net = torch.nn.Sequential(torch.nn.Linear(8, 8))
net[0].register_buffer("weight_mask", torch.rand(8, 8) < 0.3)
ift_nn.expand_(ift_nn.compact_(ift_nn.execute_sparse_(net)))
print("transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_recipe_of_a_gpt_trains_the_same_in_both_executions(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox " * 900)
    settings = "training.precision=32-true training.batch_size=2 training.eval_interval=4 method.interval=2"
    common = ["train", "--recipe", "shakespeare-gpt", "--data", "text.txt", "--steps", "4"]
    for setting in settings.split():
        common += ["--set", setting]
    runs = many([[*common, "--execution", kind, "--out", kind] for kind in ("sparse", "dense")], tmp_path)
    rows = []
    for run, kind in zip(runs, ("sparse", "dense"), strict=True):
        assert run.code == 0, run.err
        with (tmp_path / kind / "metrics.csv").open() as lines:
            rows.append(list(csv.DictReader(lines))[-1])
    sparse, dense = rows
    assert sparse["train_macs"] == dense["train_macs"]
    for name in ("loss", "test_loss"):
        assert float(sparse[name]) == pytest.approx(float(dense[name]), rel=1e-5)
