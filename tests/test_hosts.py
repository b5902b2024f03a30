"""Every module of torch.nn that has parts, with a plan applied inside: what is computed does not depend on how it is called.

PyTorch's encoder layers read their children's weights in a fused kernel, but only in evaluation and without
gradients; so the pass with gradients is the reference for the one without.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import iftplan as ift
from iftplan.errors import IftplanError, InfeasibleError
from iftplan.nn import (
    apply,
    compact_,
    finalize,
    masked_weights,
    measure_applied,
)
from iftplan.nn.members import Member
from iftplan.nn.withheld import Withheld

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


def in_order(modules: nn.Module, x: Tensor) -> Tensor:
    for module in modules.values() if isinstance(modules, nn.ModuleDict) else modules:
        x = module(x).relu()
    return x


def layers() -> list[nn.Module]:
    return [nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 16)]


SETTINGS = {"dim_feedforward": 32, "dropout": 0.0, "batch_first": True}
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
    "Sequential": lambda: (nn.Sequential(*layers()), itself),
    "ModuleList": lambda: (nn.ModuleList(layers()), in_order),
    "ModuleDict": lambda: (nn.ModuleDict(dict(zip("abc", layers(), strict=True))), in_order),
    "DataParallel": lambda: (nn.DataParallel(nn.Sequential(*layers())), itself),
}
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


@cache
def built(host: str, family: str) -> nn.Module:
    """The host with the plan applied; layers that its neighbours pay for are kept dense where nothing else closes."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense = Calls(*HOSTS[host]())
        spec = ift.read_model(dense, "2x6x16", widths=family in ("wide", "lowrank"))
        plan = ift.plan(spec, None if family == "none" else family, "1/2")
        applied = apply(plan, dense)
        assert measure_applied(plan, applied).passed
    return applied


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
        found["pickled"] = pickle.loads(pickle.dumps(model))(x)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("host", HOSTS)
def test_a_host_computes_the_same_however_it_is_called(host, family):
    applied = built(host, family)
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    states = {"applied": applied, "finalized": finalize(applied)}
    if next(masked_weights(applied), None) is not None:
        states["compact"] = compact_(copy.deepcopy(applied))
    expected = applied.train()(x).detach()
    for state, model in states.items():
        for call, found in answers(model, x).items():
            torch.testing.assert_close(
                found, expected, msg=lambda text, at=(state, call): f"{at}: {text}", **ROUNDING
            )


def test_the_hosts_are_all_that_torch_has():
    """Whatever a later PyTorch adds with parts of its own belongs into the table above."""
    known = {name.partition(",")[0] for name in HOSTS}
    containers = {"Container", "Module", "ParameterList", "ParameterDict"}  # without a forward, or without modules
    functions = {"TripletMarginWithDistanceLoss"}  # keeps a function, or a module that it calls
    found = set()
    for name, kind in vars(nn).items():
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module:
            source = inspect_init(kind)
            if any(f"{part}(" in source for part in ("Linear", "Sequential", "ModuleList", "_get_clones")):
                found.add(name)
    assert found
    assert found <= known | containers | functions, found - known


def inspect_init(kind: type) -> str:
    import inspect

    return inspect.getsource(kind.__init__) if kind.__init__ is not nn.Module.__init__ else ""
