"""Frozen weights: few samples and many come to the same, in every type, and gradients are given or refused."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, linear

from iftplan.base.errors import InputError
from iftplan.nn.execution import frozen as module_of_frozen
from iftplan.nn.execution.execute import execute_dense_, execute_sparse_
from iftplan.nn.execution.frozen import freeze
from iftplan.nn.execution.functions import kept_values
from iftplan.nn.execution.kernels.registers import instructions_here
from iftplan.nn.execution.sparsity import pattern_of
from iftplan.nn.export.finalize import finalize
from iftplan.nn.export.sparse_files.load import load_sparse
from iftplan.nn.export.sparse_files.save import save_sparse
from iftplan.nn.masks.masked_weights import enforce_
from iftplan.nn.sources.zoo.conv1d import Conv1D

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

KINDS: tuple[Any, ...] = (None, "bfloat16", "int8")
ORDER = ("avx512", "avx2", "portable")
SETS = ORDER[ORDER.index(instructions_here()) :]


def rounded(weight: torch.Tensor, kind: str | None) -> torch.Tensor:
    """By the definition: the nearest bfloat16; the nearest of 255 steps up to the largest magnitude of an output."""
    if kind is None:
        return weight
    if kind == "bfloat16":
        return weight.bfloat16().float()
    steps = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.dim() - 1)) / 127
    return torch.where(steps > 0, (weight / steps).round() * steps, 0)


def masked(outputs: int, *inputs: int, density: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(outputs)
    mask = torch.rand(outputs, *inputs) < density
    mask[0] = False  # a neuron without inputs, whose scale is zero
    return mask, torch.randn(outputs, *inputs) * mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("instructions", SETS)
def test_few_samples_and_many_are_those_of_the_rounded_layer(instructions: str, kind: Any) -> None:
    mask, weight = masked(37, 130)
    bias, pattern = torch.randn(37), pattern_of(mask, torch.float32, instructions)
    weights = freeze(pattern, kept_values(weight, pattern), kind)
    for shape in (
        (130,),
        (1, 130),
        (1, 1, 130),
        (2, 130),
        (5, 130),
        (2, 3, 130),
        (7, 130),
        (9, 130),
        (70, 130),
    ):
        x = torch.randn(shape)
        for added in (bias, None):
            truth = linear(
                x.double(), rounded(weight, kind).double(), None if added is None else bias.double()
            )
            torch.testing.assert_close(weights.linear(x, weight, added), truth.float(), rtol=1e-5, atol=1e-5)
    for x in (torch.randn(130, 3).T, torch.randn(2, 260)[:, ::2]):
        torch.testing.assert_close(
            weights.linear(x, weight, None), linear(x, rounded(weight, kind)), rtol=1e-5, atol=1e-5
        )


def test_few_samples_take_the_kernel_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, weight = masked(20, 30)
    pattern = pattern_of(mask, torch.float32)
    weights = freeze(pattern, kept_values(weight, pattern), None)
    monkeypatch.setattr(module_of_frozen, "sparse_linear", lambda *given: pytest.fail("by tiles"))
    for count in (1, 6):
        x = torch.randn(count, 30)
        torch.testing.assert_close(weights.linear(x, weight, None), linear(x, weight))
    with pytest.raises(pytest.fail.Exception, match="by tiles"):
        weights.linear(torch.randn(7, 30), weight, None)


@pytest.mark.parametrize("kind", KINDS)
def test_pointwise_convolutions_of_few_pixels(kind: Any) -> None:
    mask, weight = masked(12, 10, 1, 1)
    bias = torch.randn(12)
    for stride, padding, size, few in (
        ((1, 1), (0, 0), (1, 1, 1), True), ((1, 1), (0, 0), (2, 3, 1), True), ((1, 1), (0, 0), (3, 4, 5), False),
        ((2, 2), (0, 0), (1, 2, 2), False), ((1, 1), (1, 1), (1, 1, 1), False),
    ):  # fmt: skip
        pattern = pattern_of(mask, torch.float32, stride=stride)
        weights = freeze(pattern, kept_values(weight, pattern), kind)
        for order in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(size[0], 10, *size[1:]).to(memory_format=order)
            truth = conv2d(x, rounded(weight, kind), bias, stride, padding)
            torch.testing.assert_close(weights.conv2d(x, weight, bias, padding), truth, rtol=1e-5, atol=1e-5)
        assert (weights._sliced is not None) == few


def network() -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 60), nn.ReLU(), Conv1D(33, 60), nn.ReLU(), nn.Linear(33, 5))
    for layer in (net[0], net[2]):
        weight = layer.get_parameter("weight")
        layer.register_buffer("weight_mask", torch.rand(weight.shape) < 0.3)
    return enforce_(net)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 20])
def test_models_compute_as_dense_ones_whose_weights_are_rounded(kind: Any, samples: int) -> None:
    model = finalize(network()).eval()
    sparse = execute_sparse_(copy.deepcopy(model), frozen=True, values=kind)
    with torch.no_grad():
        model[0].weight.copy_(rounded(model[0].weight, kind))
        model[2].weight.copy_(rounded(model[2].weight.T, kind).T)
        x = torch.randn(samples, 40)
        expected = model(x)
        torch.testing.assert_close(sparse(x), expected)
        for other in (copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse))):  # noqa: S301  (ours)
            torch.testing.assert_close(other(x), expected)
        own = copy.deepcopy(execute_dense_(sparse))
    assert [type(layer) for layer in own] == [type(layer) for layer in model]
    torch.testing.assert_close(own(x), finalize(network()).eval()(x))


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_values_are_those_of_a_file(kind: Any, tmp_path: Any) -> None:
    """Rounded once, whether on the way to a file or to the kernels."""
    model = network()
    path = save_sparse(model, tmp_path / "model.safetensors", dtype=getattr(torch, kind))
    stored = load_sparse(path)
    frozen = execute_sparse_(model, frozen=True, values=kind)[0].frozen
    found = torch.from_numpy(frozen.pattern.forward.matrix(frozen.values.numpy())).view(60, 40)
    assert torch.equal(found, stored["0.weight"])


def test_whoever_needs_a_gradient_gets_it_from_weights_that_are_not_rounded() -> None:
    model = finalize(network())
    x, sparse = torch.randn(1, 40), execute_sparse_(copy.deepcopy(model), frozen=True)
    found = []
    for net in (model, sparse):
        given = x.clone().requires_grad_()
        net(given).sum().backward()
        found.append([given.grad, net[0].bias.grad, net[2].bias.grad, net[4].weight.grad])
    torch.testing.assert_close(found[1], found[0])
    assert sparse[0].weight.grad is None


@pytest.mark.parametrize("samples", [1, 20])
@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_rounded_weights_refuse_to_train(kind: Any, samples: int) -> None:
    sparse = execute_sparse_(network(), frozen=True, values=kind)
    y = sparse(torch.randn(samples, 40))
    assert torch.isfinite(y).all(), "outputs are nobody's harm"
    with pytest.raises(InputError, match=rf"rounded to {kind} are for inference.*torch\.no_grad"):
        y.sum().backward()
    with torch.no_grad():
        assert not sparse(torch.randn(samples, 40)).requires_grad


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"values='int8' are rounded copies.*frozen=True"):
        execute_sparse_(network(), values="int8")
    with pytest.raises(InputError, match=r"a Linear has weights in float64.*model\.float\(\)"):
        execute_sparse_(network().double(), frozen=True, values="bfloat16")
    wrong: Any = "int4"
    with pytest.raises(InputError, match="int4"):
        execute_sparse_(network(), frozen=True, values=wrong)
    sparse = execute_sparse_(network(), frozen=True, values="int8")
    with torch.no_grad():
        for x in (torch.randn(1, 39), torch.randn(41)):
            with pytest.raises(InputError, match="channels"):
                sparse(x)
        sparse[0].bias = nn.Parameter(torch.zeros(59))
        with pytest.raises(InputError, match="59 bias"):
            sparse(torch.randn(1, 40))


@pytest.mark.parametrize("layer", [nn.Linear(64, 64), nn.Conv2d(64, 64, 1)])
def test_masks_that_change_later_have_no_effect(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.register_buffer("weight_mask", torch.rand(layer.get_parameter("weight").shape) < 0.1)
    model = nn.Sequential(copy.deepcopy(layer))
    enforce_(model)
    x = torch.randn(20, *((64, 1, 1) if isinstance(layer, nn.Conv2d) else (64,)))
    with torch.no_grad():
        wanted = model(x)
    execute_sparse_(model, frozen=True)
    model[0].get_buffer("weight_mask").zero_()
    with torch.no_grad():
        for part in (x[:1], x):
            torch.testing.assert_close(model(part), wanted[: len(part)])
    given = x.clone().requires_grad_()
    model(given).sum().backward()
    torch.testing.assert_close(
        given.grad, torch.autograd.grad(model[0](x0 := x.clone().requires_grad_()).sum(), x0)[0]
    )
    assert float(given.grad.abs().sum()) > 0


def test_encoder_layers_call_their_frozen_layers() -> None:
    """In evaluation PyTorch would compute a whole encoder layer at once, from the weights of the layers inside."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    dense = nn.TransformerEncoder(layer, 2).eval()
    for one in dense.layers:
        for name in ("linear1", "linear2"):
            weight = one.get_submodule(name).get_parameter("weight").data
            weight *= torch.rand(weight.shape) < 0.2
    x, padding = torch.randn(3, 5, 32), torch.tensor([[False] * 5, [False] * 4 + [True], [False] * 5])
    frozen = execute_sparse_(copy.deepcopy(dense), frozen=True, values="int8")
    for given in ({}, {"src_key_padding_mask": padding}):
        with torch.no_grad():
            rounded_outputs, outputs = frozen(x, **given), dense(x, **given)
        assert not torch.equal(rounded_outputs, outputs)
        torch.testing.assert_close(rounded_outputs[0], outputs[0], atol=0.1, rtol=0.1)
    copied = pickle.loads(pickle.dumps(frozen))  # noqa: S301  (our own)
    for again in (execute_dense_(frozen), finalize(copied)):
        assert not any(len(module._forward_pre_hooks) for module in again.modules())
        assert again.use_nested_tensor == dense.use_nested_tensor
        with torch.no_grad():
            torch.testing.assert_close(
                again(x, src_key_padding_mask=padding), dense(x, src_key_padding_mask=padding)
            )
