"""Widened trained models compute what the dense ones do: every kind of coupling, at whole multiples exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec
from iftplan.nn import apply, densify
from iftplan.nn.layers.widen import widen_
from iftplan.nn.meta.inputs import make_inputs, matching
from iftplan.nn.reading.widths.trace import trace_widths
from iftplan.nn.sources import build
from iftplan.nn.warmstart.layers import relative_error
from iftplan.nn.warmstart.net2wider import net2wider
from iftplan.nn.warmstart.warm_start import WarmStart, warm_start_
from tests.support.models.widths import HAND_WRITTEN, MODELS
from tests.support.sampling import WHOLE

EXACT = 2e-6  # single precision, relative to the norm of the output


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """Weights, affine norms and statistics that are nowhere 0, 1 or small."""
    torch.manual_seed(0)
    model = make().eval()
    if hasattr(model, "config"):
        model.config.use_cache = False
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.05))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2)
    return model


def answer(model: nn.Module, inputs: tuple[InputSpec, ...]) -> Tensor:
    args, kwargs = make_inputs(matching(inputs, model), "cpu")
    generator = torch.Generator().manual_seed(1)
    args = tuple(torch.randn(x.shape, generator=generator) for x in args)
    kwargs = {n: torch.randint(40, x.shape, generator=generator) for n, x in kwargs.items()}
    with torch.no_grad():
        found = model.eval()(*args, **kwargs)
    found = getattr(found, "logits", getattr(found, "last_hidden_state", found))
    return found if isinstance(found, Tensor) else found[0]


def grown(
    model: nn.Module,
    inputs: tuple[InputSpec, ...],
    times: float,
    heads: Literal["number", "size"] = "number",
    seed: int = 0,
) -> Any:
    """Relative output error at `times` the widths, and what replicas do not cover evenly."""
    found = trace_widths(model, inputs, heads=heads)
    sizes = {
        name: width.size if width.fixed else round(width.size * times / width.multiple_of) * width.multiple_of
        for name, width in found.widths.items()
    }
    started = net2wider(model, found, sizes, inputs, seed)
    wide = widen_(copy.deepcopy(model), found, sizes)
    assert sum(p.numel() for p in wide.parameters()) > sum(p.numel() for p in model.parameters())
    wide.load_state_dict(dict(started.state))
    expected = answer(model, inputs)
    assert expected.norm() > 0.1
    return relative_error(answer(wide, inputs), expected), started.uneven


# Tracing the symbolic widths takes most of the time, so that of the deep ones two are marked slow.
SLOW = {"MobileNetV2", "MobileViT"}
OTHER_HEADS = {"attention", "multi-head attention", "GPT-2", "T5"}
CASES = [
    pytest.param(name, heads, marks=[pytest.mark.slow] if name in SLOW else [])
    for heads, names in (("number", MODELS), ("size", sorted(OTHER_HEADS)))
    for name in names
]


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_at_twice_the_widths_it_is_the_dense_model(name: str, heads: Literal["number", "size"]) -> None:
    make, inputs = MODELS[name]
    error, uneven = grown(trained(make), inputs, 2, heads)
    assert error < EXACT
    assert uneven == ()


EVEN = ["residual", "grouped", "depthwise", "depthwise multiplier", "squeeze and excite", "concatenation"]


@pytest.mark.parametrize("name", [*EVEN, "vgg, flatten into a classifier", "ResNet basic"])
def test_without_means_over_channels_any_width_is_exact(name: str) -> None:
    make, inputs = MODELS[name]
    error, uneven = grown(trained(make), inputs, 1.5)
    assert error < EXACT
    assert uneven == ()


@pytest.mark.parametrize("name", ["attention", "GPT-2", "Llama, grouped queries", "ConvNeXt"])
def test_norms_over_uneven_replicas_are_named(name: str) -> None:
    make, inputs = MODELS[name]
    error, uneven = grown(trained(make), inputs, 1.5)
    norms = [n for n, m in make().named_modules() if "Norm" in type(m).__name__]
    assert uneven
    assert set(uneven) <= set(norms)
    assert len(uneven) >= len(norms) - 1
    assert EXACT < error < 0.5


class Tiny(nn.Module):
    """One block: a norm, fused projections that differ in size, a scale of attention that is a constant."""

    def __init__(self, norm: bool, scaled: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8, elementwise_affine=norm) if norm else nn.Identity()
        self.stem, self.qkv, self.out = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 5)
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        y = self.norm(self.stem(x))
        q, k, v = self.qkv(y).view(n, t, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind()
        scores = q @ k.mT
        if self.scaled:
            scores = scores / q.shape[-1] ** 0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("scaled", [False, True])
def test_scores_stay_whether_their_scale_follows_the_width_or_not(scaled: bool) -> None:
    """Every channel of a query counts its own replicas, so that uneven ones are exact too."""
    error, uneven = grown(trained(lambda: Tiny(False, scaled)), (InputSpec((2, 3, 6)),), 1.5)
    assert error < EXACT
    assert uneven == ()


class Tied(nn.Module):
    """A table that is looked up and then read as a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.norm = nn.Embedding(40, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8, 40, bias=False)
        self.head.weight = self.table.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.norm(self.body(self.table(input_ids)).relu()))


def test_a_tied_table_stays_tied() -> None:
    model, inputs = trained(Tied), (InputSpec((2, 5), "int64", "input_ids"),)
    found = trace_widths(model, inputs)
    sizes = {n: w.size if w.fixed else 2 * w.size for n, w in found.widths.items()}
    state = net2wider(model, found, sizes, inputs).state
    assert torch.equal(state["table.weight"], state["head.weight"])
    assert grown(model, inputs, 2)[0] < EXACT


class Unscalable(Tied):
    """Between the table and what reads it nothing takes a factor."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.body(self.table(input_ids)).tanh())


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(y / y.exp().sum(-1, keepdim=True))


class SharedKeys(nn.Module):
    """Queries that are the keys too: scaled for one they are not the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both, self.out = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        q = self.both(y)
        return self.out((q @ q.mT).softmax(-1) @ y)


REFUSED = [
    (Unscalable, InputSpec((2, 5), "int64", "input_ids"), 2, r"head .*comes from tanh"),
    (Summed, InputSpec((2, 3, 6)), 2, r"its sum .*is not a mean"),
    (SharedKeys, InputSpec((2, 3, 6)), 2, r"its bmm .*read elsewhere"),
    (HAND_WRITTEN["shuffle"], InputSpec((2, 3, 16, 16)), 1.5, r"^2 cannot .* its split .*break up"),
]


@pytest.mark.parametrize(("make", "spec", "times", "said"), REFUSED)
def test_what_replicas_cannot_follow_is_refused_by_name(
    make: Callable[..., Any], spec: InputSpec, times: float, said: str
) -> None:
    with pytest.raises(InfeasibleError, match=said):
        grown(trained(make), (spec,), times)


def test_the_seed_chooses_what_is_replicated_beyond_whole_multiples() -> None:
    make, inputs = MODELS["residual"]
    model, found = trained(make), trace_widths(make(), inputs)
    sizes = {n: w.size if w.fixed else w.size + w.multiple_of for n, w in found.widths.items()}
    one, same, other = (net2wider(model, found, sizes, inputs, seed).state for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    written = net2wider(model, found, sizes, [str(given) for given in inputs]).state
    assert all(torch.equal(one[name], written[name]) for name in one), "inputs as read_model takes them"


# --- whole plans ----------------------------------------------------------------------------------------


DOUBLE = 2e-9
"""Double precision: single's rounding through a whole network depends on the processor. What is left, 4e-10 at most, comes of
constants that some models hold in single precision."""


def unmasked(make: Callable[[], nn.Module], *inputs: str) -> WarmStart:
    model = trained(make).double()
    inputs = tuple(text if ":" in text else f"{text}:float64" for text in inputs)
    plan = ift.plan(ift.read_model(model, *inputs), "wide", "3/4", scope="matrices")
    applied = densify(apply(plan, model, nonlinear=False)).eval()
    return warm_start_(applied, model, plan)


def llama() -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 50}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, **heads))


def convnext() -> nn.Module:
    sizes = {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1]}
    return hf.ConvNextForImageClassification(hf.ConvNextConfig(**sizes))


PLANNED = [
    pytest.param(llama, ("2x11:int64",), id="Llama, grouped queries"),
    pytest.param(convnext, ("2x3x32x32",), id="ConvNeXt"),
    *(
        pytest.param(MODELS[n][0], tuple(map(str, MODELS[n][1])), id=n, marks=pytest.mark.slow)
        for n in ("BERT", "ViT", *(("GPT-2", "MobileNetV2") if WHOLE else ()))
    ),
]


@pytest.mark.parametrize(("make", "inputs"), PLANNED)
def test_a_plan_that_doubles_the_widths_starts_from_the_dense_model(
    make: Callable[..., Any], inputs: tuple[str, ...]
) -> None:
    report = unmasked(make, *inputs)
    assert report.output < DOUBLE
    assert report.uneven == ()
    assert set(report.layers.values()) == {0.0}


@pytest.mark.slow
def test_a_zoo_model_starts_from_the_dense_one() -> None:
    report = unmasked(lambda: build("zoo:resnet18-cifar", device="cpu"), str(parse_input("1x3x32x32")))
    assert report.output < DOUBLE
    assert report.uneven == ()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"nonsense": 99}, "there is no width 'nonsense'"),
        ("half", "cannot become 4: replicas make a model wider"),
    ],
)
def test_what_is_no_wider_model_is_refused(asked: Any, says: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    couplings = ift.read_model(model, "2x6", widths=True).couplings
    assert couplings is not None
    sizes = asked if asked != "half" else {name: width.size // 2 for name, width in couplings.widths.items()}
    with pytest.raises(InputError, match=says):
        net2wider(model, couplings, sizes, "2x6")
