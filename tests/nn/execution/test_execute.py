"""Models that compute with what their masks keep: the same numbers, masks that move, and what cannot."""

import copy
import pickle
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.nn.application.sparsify import sparsify
from iftplan.nn.execution.compaction import compact_, expand_
from iftplan.nn.execution.execute import dense_gradients_, execute_dense_, execute_sparse_
from iftplan.nn.execution.layers import CompactConv2d, CompactLinear, SparseConv2d, SparseLinear
from iftplan.nn.export.condensed import condense
from iftplan.nn.export.finalize import densify, finalize
from iftplan.nn.masking.algorithms.exchange.rigl import RigL
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masks.masked_weights import enforce_, masked_weights
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.nn.training.execution import run_sparse_
from iftplan.runs.schedules import Updates
from iftplan.runs.settings import MethodConfig, RunConfig, TrainingConfig

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two masked convolutions, one of them strided, a masked linear layer and a dense one."""
    torch.manual_seed(0)
    net = nn.Sequential(
        # not normalised at once: the gradient of the first bias would be nothing but rounding, which Adam blows up
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8),
        nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * 16, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip
    for index in (0, 3, 6):
        weight = net[index].get_parameter("weight")
        net[index].register_buffer("weight_mask", torch.rand(weight.shape) < 0.3)
    enforce_(net.to(dtype))
    return net


def images(count: int = 6, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, 2, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))


def trained(model: nn.Module, steps: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    masks = Masking(model, optimizer, RigL(Updates(end=steps, interval=2)))
    losses = []
    for step in range(steps):
        dense_gradients_(model, masks.wants_dense_gradient)
        loss = nn.functional.cross_entropy(model(images() + step), torch.arange(6) % 5)
        loss.backward()
        masks.step()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert masks.exploration.updates >= 3
    return losses, model.state_dict()


def test_a_model_computes_what_it_did() -> None:
    model = network()
    sparse = execute_sparse_(copy.deepcopy(model))
    assert [type(sparse[i]) for i in (0, 3, 6, 8)] == [SparseConv2d, SparseConv2d, SparseLinear, nn.Linear]
    torch.testing.assert_close(sparse(images()), model(images()))
    assert sparse.state_dict().keys() == model.state_dict().keys()
    back = execute_dense_(sparse)
    assert [type(module) for module in back] == [type(module) for module in model]


def test_training_under_masks_that_move_is_the_same_training() -> None:
    dense, sparse = network(), execute_sparse_(network())
    (losses, state), (found, there) = trained(dense, 9), trained(sparse, 9)
    assert losses == pytest.approx(found, rel=1e-9)
    for name, value in state.items():
        torch.testing.assert_close(there[name], value, rtol=1e-8, atol=1e-10)


def test_growth_needs_the_dense_gradient_and_gets_it() -> None:
    """Without it every candidate scores zero, and another mask comes out."""
    model = execute_sparse_(network())
    weight = model[3].weight
    model(images()).sum().backward()
    assert not weight.grad[~model[3].weight_mask].any()
    weight.grad = None
    dense_gradients_(model, True)
    model(images()).sum().backward()
    assert weight.grad[~model[3].weight_mask].any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dense_gradients_are_those_of_the_dense_layers_while_the_rest_stays_sparse(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of strided, dilated and padded convolutions and of linear layers, and of what comes before them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 20, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2)), nn.Flatten(),
        nn.Linear(20 * 5 * 6, 10),
    ).double()  # fmt: skip
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    dense = sparsify(model, "3/4", keep_dense=None)
    sparse = execute_sparse_(copy.deepcopy(dense))
    dense_gradients_(sparse, True)
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)

    def gradients(network: nn.Module) -> list[Any]:
        given = x.clone().requires_grad_()
        network(given).square().sum().backward()
        return [given.grad, *(p.grad for p in network.parameters())]

    expected = gradients(dense)
    for kind in (nn.Conv2d, nn.Linear):
        monkeypatch.delattr(kind, "forward")
    for ours, theirs in zip(gradients(sparse), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_changed_mask_is_packed_again() -> None:
    model = execute_sparse_(network())
    model(images())
    with torch.no_grad():  # weights appear where there were none
        model[6].weight_mask.copy_(model[6].weight_mask.roll(1, 1))
        model[6].weight.normal_()
    enforce_(model)
    torch.testing.assert_close(model(images()), execute_dense_(copy.deepcopy(model))(images()))


def test_a_copy_packs_the_mask_that_it_has() -> None:
    """A copy's mask counts its changes anew, so that their number can be that of the mask which the original had packed."""
    states = [network(torch.float32).state_dict() for _ in range(2)]
    states[1] = {k: v.flip(0) if k.endswith(("weight", "weight_mask")) else v for k, v in states[1].items()}
    for writes in range(4):
        model = execute_sparse_(network(torch.float32))
        for _ in range(writes):
            model.load_state_dict(states[0])
        model(images(dtype=torch.float32))
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301  (our own)
            for _ in range(3):
                copied.load_state_dict(states[1])
                alone = copy.deepcopy(execute_dense_(copy.deepcopy(copied)))
                x = images(dtype=torch.float32)
                torch.testing.assert_close(copied(x), alone(x), rtol=1e-4, atol=1e-4)


def test_a_network_may_change_its_type_after_its_masks_were_packed() -> None:
    model = execute_sparse_(network(torch.float32))
    model(images(dtype=torch.float32))
    torch.testing.assert_close(model.double()(images()), execute_dense_(copy.deepcopy(model))(images()))


@pytest.mark.parametrize("samples", [1, 9])
@pytest.mark.parametrize(
    ("before", "after"), [(torch.float64, torch.float32), (torch.float32, torch.float64)]
)
def test_frozen_weights_do_not_change_their_type(
    samples: int, before: torch.dtype, after: torch.dtype
) -> None:
    """Bytes of one type would be read as the other."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    layer[1].register_buffer("weight_mask", torch.rand(8, 12) < 0.4)
    frozen = execute_sparse_(layer.to(before), frozen=True)
    frozen(torch.randn(samples, 12, dtype=before))
    with pytest.raises(InputError, match=r"frozen with \d\d-bit weights was turned to"):
        frozen.to(after)(torch.randn(samples, 12, dtype=after))


def test_compact_training_is_the_same_training_and_comes_back() -> None:
    """Momentum, decay and Adam's moments act on each kept weight as they do in the dense one."""
    kinds: tuple[tuple[Any, dict[str, Any]], ...]
    kinds = ((torch.optim.SGD, {"momentum": 0.9}), (torch.optim.AdamW, {}))
    for kind, settings in kinds:
        models = network(), compact_(network())
        assert [type(models[1][i]) for i in (0, 3, 6, 8)] == [
            CompactConv2d, CompactConv2d, CompactLinear, nn.Linear,
        ]  # fmt: skip
        assert not list(masked_weights(models[1]))
        losses = []
        for model in models:
            optimizer = kind(model.parameters(), 0.05, weight_decay=0.1, **settings)
            masks = Masking(model, optimizer) if model is models[0] else None
            for step in range(4):
                loss = nn.functional.cross_entropy(model(images() + step), torch.arange(6) % 5)
                loss.backward()
                losses.append(float(loss.detach()))
                if masks is not None:
                    masks.step()
                optimizer.step()
                optimizer.zero_grad()
        assert losses[:4] == pytest.approx(losses[4:], rel=1e-9)
        dense, back = models[0], expand_(models[1])
        assert [type(module) for module in back] == [type(module) for module in dense]
        assert list(back.state_dict()) == list(dense.state_dict())
        for name, value in dense.state_dict().items():
            torch.testing.assert_close(back.state_dict()[name], value, rtol=1e-8, atol=1e-10)


def test_compact_layers_say_what_they_cannot_and_leave_shared_weights() -> None:
    model = network(torch.float32)
    model.append(nn.Linear(192, 16))
    model[-1].weight = model[6].weight
    compact_(model)
    assert type(model[6]) is nn.Linear and isinstance(model[3], CompactConv2d)
    with pytest.raises(InputError, match=r"float64 of size \(6, 2, 8, 8\).*expand_"):
        model[0](images())
    with pytest.raises(InputError, match="apply a plan"):
        compact_(nn.Sequential(nn.Linear(3, 3)))


def test_finalized_models_run_frozen_and_do_not_look_at_weights_again() -> None:
    model = finalize(network(torch.float32)).eval()
    expected = model(images(dtype=torch.float32))
    frozen = execute_sparse_(copy.deepcopy(model), frozen=True)
    torch.testing.assert_close(frozen(images(dtype=torch.float32)), expected)
    assert isinstance(frozen[6], SparseLinear) and type(frozen[8]) is nn.Linear
    with torch.no_grad():
        frozen[6].weight.zero_()
    torch.testing.assert_close(frozen(images(dtype=torch.float32)), expected)


def test_what_kernels_cannot_run_goes_on_as_it_was() -> None:
    model = network(torch.float32)
    grouped = nn.Conv2d(4, 4, 3, groups=2)
    grouped.register_buffer("weight_mask", torch.rand(grouped.weight.shape) < 0.5)
    model.append(grouped)
    execute_sparse_(model)
    assert type(model[-1]) is nn.Conv2d
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model[6](torch.randn(3, 192)).dtype is torch.bfloat16
    assert model[0](torch.randn(0, 2, 8, 8)).shape == (0, 8, 8, 8)
    model[6].weight_mask.fill_(True)  # a dense start
    model[6](torch.randn(3, 192))
    assert model[6]._packed[2] is None


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no masked linear layer or convolution.*apply a plan"):
        execute_sparse_(nn.Sequential(nn.Linear(3, 3)))
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(InputError, match=r"pip install 'iftplan\[bench\]'"):
        execute_sparse_(network())


@pytest.mark.parametrize(
    ("method", "precision", "device", "strategy", "says"),
    [
        ("ste", "32-true", "cpu", "auto", "ste needs all weights"),
        ("snfs", "32-true", "cpu", "auto", "snfs needs all weights"),
        ("dense", "32-true", "cpu", "auto", "dense needs all weights"),
        ("rigl", "bf16-mixed", "cpu", "auto", "bf16-mixed on cpu"),
        ("rigl", "32-true", "cuda", "auto", "32-true on cuda"),
        ("rigl", "32-true", "cpu", "fsdp", "use training.strategy=ddp"),
    ],
)
def test_runs_that_cannot(method: Any, precision: str, device: str, strategy: Any, says: str) -> None:
    engine: Any = SimpleNamespace(
        _precision=SimpleNamespace(precision=precision), device=SimpleNamespace(type=device)
    )
    config = RunConfig(
        method=replace(MethodConfig(), name=method),
        training=TrainingConfig(execution="sparse", strategy=strategy),
    )
    with pytest.raises(InputError, match=says):
        run_sparse_(network(), config, engine)


def test_what_is_exported_has_plain_layers_again() -> None:
    model = execute_sparse_(network(torch.float32))
    for exported in (finalize(model), densify(execute_sparse_(finalize(model), frozen=True))):
        assert [type(exported[i]) for i in (0, 3, 6)] == [nn.Conv2d, nn.Conv2d, nn.Linear]
    x = images(dtype=torch.float32)
    torch.testing.assert_close(condense(model)(x), finalize(model)(x))


def test_expanded_convolutions_lie_as_torch_makes_them() -> None:
    model = expand_(compact_(network()))
    assert all(model[i].get_parameter("weight").is_contiguous() for i in (0, 3))
    out: torch.Tensor = finalize(compact_(network()))[:5](images())
    assert out.is_contiguous()


def test_compact_layers_take_an_input_without_samples() -> None:
    for model in (compact_(network()), compact_(nn.Sequential(named_conv1d()))):
        shape = (0, 2, 8, 8) if len(model) > 1 else (0, 3, 6)
        x = torch.empty(shape, dtype=torch.float64)
        y = model(x)
        assert len(y) == 0
        y.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def named_conv1d() -> nn.Module:
    layer = Conv1D(4, 6).double()
    layer.register_buffer("weight_mask", torch.rand(layer.weight.shape) < 0.3)
    return layer


def test_layers_made_in_inference_mode_run() -> None:
    with torch.inference_mode():
        model = copy.deepcopy(network())
        torch.testing.assert_close(execute_sparse_(copy.deepcopy(model))(images()), model(images()))


def test_a_model_that_is_masked_is_not_told_to_be_masked() -> None:
    with pytest.raises(InputError, match="is compact already"):
        execute_sparse_(compact_(network()))
    dense = network()
    for i in (0, 3, 6):
        dense[i].get_buffer("weight_mask").fill_(True)
    with pytest.raises(InputError, match="has masks, but no layer"):
        compact_(dense)
