"""Every module of torch.nn that has parts, with a plan applied inside: what is computed does not depend on how it is called.

PyTorch's encoder layers read their children's weights in a fused kernel, but only in evaluation and without
gradients; so the pass with gradients is the reference for the one without.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.nn import (
    apply,
    compact_,
    finalize,
    masked_weights,
    measure_applied,
)
from iftplan.nn.layers.branches import Member
from iftplan.nn.layers.placeholder import Placeholder
from iftplan.plans.plan import Plan

FAMILIES = ("parallel", "factorized", "doped", "lowrank", "wide", "none")


class Calls(nn.Module):
    """Gives one input to a module that takes several, between two layers that stay dense."""

    def __init__(self, inner: nn.Module, how: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.inner, self.after = nn.Linear(16, 16), inner, nn.Linear(16, 16)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.how(self.inner, self.before(x)))


def itself(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


def twice(module: nn.Module, x: Tensor) -> Tensor:
    return module(x, x)


def padded(module: nn.Module, x: Tensor) -> Tensor:
    """With the last two tokens of the second sample away: encoders make nested tensors of that."""
    away = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    away[1, -2:] = True
    return module(x, src_key_padding_mask=away) * ~away[..., None]


def attention(module: nn.Module, x: Tensor) -> Tensor:
    return module(x, x, x, need_weights=False)[0]


def log_probabilities(module: nn.Module, x: Tensor) -> Tensor:
    return module.log_prob(x.flatten(0, 1)).unflatten(0, x.shape[:2])[..., :16]


def loss_of_zeros(module: nn.Module, x: Tensor) -> Tensor:
    return x + module(x.flatten(0, 1), torch.zeros(12, dtype=torch.long, device=x.device))


def in_order(modules: nn.Module, x: Tensor) -> Tensor:
    for module in modules.values() if isinstance(modules, nn.ModuleDict) else modules:
        x = module(x).relu()
    return x


def layers() -> list[nn.Module]:
    return [nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 16)]


SETTINGS: dict[str, Any] = {"dim_feedforward": 32, "dropout": 0.0, "batch_first": True}
HOSTS: dict[str, Callable[[], tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]]] = {
    "TransformerEncoderLayer": lambda: (nn.TransformerEncoderLayer(16, 2, **SETTINGS), itself),
    "TransformerEncoderLayer, norm first": lambda: (
        nn.TransformerEncoderLayer(16, 2, norm_first=True, activation="gelu", **SETTINGS),
        itself,
    ),
    "TransformerEncoderLayer, padded": lambda: (nn.TransformerEncoderLayer(16, 2, **SETTINGS), padded),
    "TransformerEncoder": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, **SETTINGS), 2),
        itself,
    ),
    "TransformerEncoder, nested": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, **SETTINGS), 2, mask_check=False),
        padded,
    ),
    "TransformerDecoderLayer": lambda: (nn.TransformerDecoderLayer(16, 2, **SETTINGS), twice),
    "TransformerDecoder": lambda: (
        nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 2, **SETTINGS), 2),
        twice,
    ),
    "Transformer": lambda: (
        nn.Transformer(16, 2, num_encoder_layers=1, num_decoder_layers=1, **SETTINGS),
        twice,
    ),
    "MultiheadAttention": lambda: (nn.MultiheadAttention(16, 2, batch_first=True), attention),
    "AdaptiveLogSoftmaxWithLoss": lambda: (
        nn.AdaptiveLogSoftmaxWithLoss(16, 40, [10, 20], div_value=2.0),
        log_probabilities,
    ),
    "LinearCrossEntropyLoss": lambda: (nn.LinearCrossEntropyLoss(16, 5), loss_of_zeros),
    "Sequential": lambda: (nn.Sequential(*layers()), itself),
    "ModuleList": lambda: (nn.ModuleList(layers()), in_order),
    "ModuleDict": lambda: (nn.ModuleDict(dict(zip("abc", layers(), strict=True))), in_order),
    "DataParallel": lambda: (nn.DataParallel(nn.Sequential(*layers())), itself),
}
ROUNDING: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@cache
def built(host: str, family: str) -> nn.Module:
    """The host with the plan applied, which is as it was planned."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense = Calls(*HOSTS[host]())
        spec = ift.read_model(dense, "2x6x16", widths=family in ("wide", "lowrank"))
        # at 1/2 low rank does not pay for attention, whose own weights have no pair in their place
        plan = ift.plan(spec, None if family == "none" else family, "1/10" if family == "lowrank" else "1/2")
        applied = apply(plan, dense)
        assert measure_applied(plan, applied).passed
    return applied


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))  # noqa: S301  (of our own)


def answers(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The outputs in training and evaluation, with and without gradients, and after a round of copies."""
    found = {}
    for training in (True, False):
        model.train(training)
        found[f"with gradients, training={training}"] = model(x).detach()
        with torch.no_grad():
            found[f"without, training={training}"] = model(x)
        with torch.inference_mode():
            found[f"inference, training={training}"] = model(x).clone()
    with torch.no_grad():
        found["deep copy"] = copy.deepcopy(model)(x)
        found["pickled"] = pickled(model)(x)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_computes_the_same_however_it_is_called(host: str, family: str) -> None:
    if (host, family) == ("MultiheadAttention", "lowrank"):
        with pytest.raises(InfeasibleError, match="MultiheadAttention uses this weight directly"):
            built(host, family)
        return
    applied = built(host, family)
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    states = {"applied": applied, "finalized": finalize(applied)}
    if any(type(w.module) is nn.Linear for w in masked_weights(applied)):
        with contextlib.suppress(InputError):  # above a density of .7 there is nothing to run sparse
            states["compact"] = compact_(copy.deepcopy(applied))
    if (
        host == "LinearCrossEntropyLoss" and "compact" in states
    ):  # it reads a weight that compact layers have not
        with pytest.raises(InfeasibleError, match="compact layers have no dense weight"):
            states.pop("compact")(x)
    expected = applied.train()(x).detach()
    for state, model in states.items():
        for call, found in answers(model, x).items():
            torch.testing.assert_close(
                found, expected, msg=partial("{}: {}".format, (state, call)), **ROUNDING
            )


def test_the_hosts_are_all_that_torch_has() -> None:
    """Whatever a later PyTorch adds with parts of its own belongs into the table above."""
    known = {name.partition(",")[0] for name in HOSTS}
    made = ("Linear(", "Sequential(", "ModuleList(", "_get_clones(")
    found = {
        name
        for name, kind in vars(nn).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module
        if any(part in inspect.getsource(kind.__init__) for part in made)
    }
    assert {"MultiheadAttention", "TransformerEncoderLayer", "AdaptiveLogSoftmaxWithLoss"} <= found
    assert found <= known, found - known


def test_a_later_layer_may_be_the_only_one_that_was_replaced() -> None:
    """PyTorch's encoder looks at its first layer alone before it makes nested tensors for all of them."""
    torch.manual_seed(0)
    dense = Calls(*HOSTS["TransformerEncoder, nested"]())
    kept = ("before", "inner.layers.0.linear1", "inner.layers.0.linear2", "after")
    applied = apply(ift.plan(ift.read_model(dense, "2x6x16"), "parallel", "1/2", keep_dense=kept), dense)
    assert isinstance(applied.inner.layers[1].linear1, Member)
    assert isinstance(applied.inner.layers[0].linear1, nn.Linear)
    x = torch.randn(2, 6, 16)
    expected = applied.train()(x)
    for found in answers(applied, x).values():
        torch.testing.assert_close(found, expected, **ROUNDING)


# --- hosts of users ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """Four layers, used as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        layers = [nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)]
        for i, layer in enumerate(layers):
            self.add_module(f"l{i}", layer)
        self.kept: Any = {"list": layers, "tuple": tuple(layers), "dict": dict(enumerate(layers))}.get(
            how, layers
        )
        if how == "object":
            self.kept = type("Box", (), {})()
            self.kept.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for i in range(4):
            own: Any = self.get_submodule(f"l{i}")
            match self.how:
                case "its own":
                    x = own(x)
                case "weight":
                    x = nn.functional.linear(x, own.weight, own.bias)
                case "weight and call":
                    x = own(x) + x.new_zeros(1) * nn.functional.linear(x, own.weight)
                case "bias and call":
                    x = own(x) + own.bias
                case "product":
                    x = own(x) + x @ own.weight.t()
                case "list and call":
                    x = self.kept[i](x) + own(x)
                case "object":
                    x = self.kept.layers[i](x)
                case _:
                    x = self.kept[i](x)
            x = x.relu()
        return x


def planned(how: str, family: str) -> tuple[Plan, nn.Module]:
    torch.manual_seed(0)
    dense = Net(how)
    spec = ift.read_model(dense, "2x8", widths=family in ("wide", "lowrank"))
    return ift.plan(spec, None if family == "none" else family, "1/2"), dense


@pytest.mark.parametrize("family", ["parallel", "factorized", "doped", "lowrank"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("list", "the plan replaced l1, but the model does not call the replacement"),
        ("tuple", "the plan replaced l1, but the model does not call the replacement"),
        ("dict", "the plan replaced l1, but the model does not call the replacement"),
        ("object", "the plan replaced l1, but the model does not call the replacement"),
        ("list and call", "a layer that the plan replaced is still used"),
        ("weight and call", "uses the weight of l1"),
        ("bias and call", "uses the bias of l1"),
        ("product", "uses the weight of l1"),
    ],
)
def test_a_model_that_goes_round_a_replaced_layer_is_refused(how: str, said: str, family: str) -> None:
    plan, dense = planned(how, family)
    with pytest.raises(InfeasibleError, match=said):
        apply(plan, dense)


@pytest.mark.parametrize("family", ["wide", "none"])
@pytest.mark.parametrize("how", ["list", "tuple", "dict", "object", "weight", "product", "list and call"])
def test_masks_alone_hold_wherever_a_layer_is_kept(how: str, family: str) -> None:
    plan, dense = planned(how, family)
    applied = apply(plan, dense)
    assert measure_applied(plan, applied).passed
    with torch.no_grad():
        for parameter in applied.parameters():
            parameter.zero_()
    assert not applied(torch.randn(2, 8)).any()  # no layer of the dense model is left in it


def test_a_layer_that_is_only_read_is_not_replaced() -> None:
    plan, dense = planned("weight", "parallel")
    assert not any(isinstance(module, Member) for module in apply(plan, dense).modules())


def test_a_replaced_weight_says_what_it_is_like_and_no_more() -> None:
    plan, dense = planned("its own", "factorized")
    member = apply(plan, dense).double().l1
    assert isinstance(member.weight, Placeholder)
    assert (member.weight.shape, member.weight.dtype, member.weight.device.type) == (
        (16, 16),
        torch.float64,
        "cpu",
    )
    assert (member.bias.shape, member.weight.dim(), member.weight.numel(), len(member.weight)) == (
        (16,),
        2,
        256,
        16,
    )
    assert member.weight.requires_grad
    for used in (
        lambda: member.weight + 1,
        lambda: 2 * member.weight,
        lambda: member.weight[0],
        lambda: member.weight.data,
        lambda: member.weight.norm(),
        lambda: member.weight.mul_(2),
        lambda: torch.stack([member.weight]),
        lambda: nn.functional.linear(torch.randn(2, 16), member.weight),
        lambda: copy.deepcopy(member.weight),
    ):
        with pytest.raises(InfeasibleError, match=r"weight of l1 directly .*replaced it by a Factorized"):
            used()


# --- ways out ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["linear", "convolutions"])
def test_a_finalized_model_scripts_exports_and_copies_as_the_dense_one_does(kind: str, family: str) -> None:
    torch.manual_seed(0)
    if kind == "linear":
        dense, shape = nn.Sequential(*layers(), nn.ReLU(), *layers()), "2x16"
    else:
        dense = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)
        )
        shape = "2x3x8x8"
    spec = ift.read_model(dense, shape, widths=family in ("wide", "lowrank"))
    plan = ift.plan(spec, None if family == "none" else family, "1/2")
    final = finalize(apply(plan, dense)).eval()
    torch.compiler.reset()
    x = torch.randn([int(n) for n in shape.split("x")])
    expected = final(x)
    ways = {
        "script": lambda: torch.jit.script(final),
        "trace": lambda: torch.jit.trace(final, (x,)),
        "export": lambda: torch.export.export(final, (x,)).module(),
        "compile": lambda: torch.compile(final, backend="eager", fullgraph=True),
        "copy": lambda: copy.deepcopy(final),
        "pickle": lambda: pickled(final),
    }
    for name, way in ways.items():
        torch.testing.assert_close(way()(x), expected, msg=partial("{}: {}".format, name), **ROUNDING)


@pytest.mark.parametrize("family", ["parallel", "doped"])
def test_encoder_layers_compile_and_export_without_gradients(family: str) -> None:
    final = finalize(built("TransformerEncoderLayer", family)).eval()
    torch.compiler.reset()
    x = torch.randn(2, 6, 16)
    expected = final(x).detach()
    with torch.no_grad():
        for made in (
            torch.compile(final, backend="eager", fullgraph=True),
            torch.export.export(final, (x,), strict=True).module(),
            torch.export.export(final, (x,)).module(),
        ):
            torch.testing.assert_close(made(x), expected, **ROUNDING)
