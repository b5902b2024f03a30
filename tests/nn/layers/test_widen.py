"""Rebuilding at new widths: the model runs, its outputs keep their shape, its MACs are the predicted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import iftplan as ift
from iftplan.base.errors import InputError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.layers.widen import widen_
from iftplan.nn.meta.copies import on_meta
from iftplan.nn.meta.inputs import make_inputs
from iftplan.nn.reading.widths.trace import trace_widths
from tests.support.models.widths import IMAGE, MODELS, TRANSFORMERS, classifier, conv
from tests.support.sampling import sampled

SLOW = ("MobileNetV2", "MobileViT", "Swin")
FACTORS = ((2, "number"), (1.37, "size"))
CASES = [
    *(
        pytest.param(
            name, *factor, marks=[pytest.mark.slow] if factor[0] != 2 and name in TRANSFORMERS else []
        )
        for name in MODELS
        if name not in SLOW
        for factor in FACTORS
    ),
    *(pytest.param(name, *factor, marks=pytest.mark.slow) for name, factor in sampled(SLOW, FACTORS, of=2)),
]


def resized(couplings: Couplings, factor: float) -> dict[str, int]:
    return {
        name: w.size if w.fixed else max(1, round(w.size * factor / w.multiple_of)) * w.multiple_of
        for name, w in couplings.widths.items()
    }


def answer(model: nn.Module, inputs: tuple[InputSpec, ...]) -> torch.Size:
    args, kwargs = make_inputs(inputs, "cpu")
    with torch.no_grad():
        output = model(*args, **kwargs)
    return getattr(output, "logits", output).shape


def flop_counter_macs(model: nn.Module, inputs: tuple[InputSpec, ...]) -> int:
    args, kwargs = make_inputs(inputs, "meta")
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*args, **kwargs)
    torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("name", "factor", "heads"), CASES)
def test_a_widened_model_runs_at_exactly_the_predicted_cost(
    name: str, factor: float, heads: Literal["number", "size"]
) -> None:
    build, inputs = MODELS[name]
    model = build().eval()
    before = answer(model, inputs)
    couplings = trace_widths(model, inputs, heads=heads)
    sizes = resized(couplings, factor)
    assert widen_(model, couplings, sizes) is model
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == {
        n: tuple(d.at(sizes) for d in couplings.shapes[n]) for n, _ in model.named_parameters()
    }
    assert answer(model, inputs) == before
    model = on_meta(model)
    assert measure(model, inputs).by_weight() == {n: p.at(sizes) for n, p in couplings.weight_macs.items()}
    predicted = [*couplings.weight_macs.values(), *couplings.product_macs.values()]
    assert flop_counter_macs(model, inputs) == sum(p.at(sizes) for p in predicted)


@pytest.mark.parametrize(
    "name", ["residual", "depthwise", "GPT-2", "Llama, grouped queries", "multi-head attention"]
)
def test_a_widened_model_is_as_if_it_had_been_built_so(name: str) -> None:
    # Traced again, it has the couplings of the dense model at the new sizes: its attributes agree with its weights.
    build, inputs = MODELS[name]
    with torch.device("meta"):
        model = build()
    couplings = trace_widths(model, inputs)
    sizes = resized(couplings, 2)
    again = trace_widths(widen_(model, couplings, sizes), inputs)
    assert again.shapes == couplings.shapes
    assert again.attributes == couplings.attributes
    assert again.weight_macs == couplings.weight_macs
    assert {n: w.size for n, w in again.widths.items()} == sizes


def test_bookkeeping_attributes_of_torch_modules_follow() -> None:
    model = classifier(conv(3, 8), nn.Conv2d(8, 24, 3, groups=8), nn.GroupNorm(4, 24), channels=24)
    couplings = trace_widths(model, IMAGE)
    widen_(model, couplings, resized(couplings, 2))
    stem, norm, depthwise, group_norm, head = model[0][0], model[0][1], model[1], model[2], model[5]
    assert (stem.in_channels, stem.out_channels, norm.num_features) == (3, 16, 16)
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (16, 48, 16)
    assert (group_norm.num_channels, head.in_features, head.out_features) == (48, 48, 7)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ViT", "vit.layers.0.attention"),
        ("GPT-2, many layers", "transformer.h.8.attn"),
        ("BERT", "bert.encoder.layer.1.attention.self"),
    ],
)
def test_attention_scores_are_scaled_by_the_new_size_of_a_head(name: str, path: str) -> None:
    build, inputs = MODELS[name]
    model = build()
    attention = model.get_submodule(path)
    scale = attention.scaling
    cases: tuple[tuple[Literal["number", "size"], float], ...] = (("size", 1.0), ("number", 0.5))
    for heads, factor in cases:
        couplings = trace_widths(model, inputs, heads=heads)
        widen_(model, couplings, resized(couplings, 4))
        assert attention.scaling == scale * factor
        assert type(attention.scaling) is float
        model = build()
        attention = model.get_submodule(path)


@pytest.mark.parametrize("size", [8, 12, 24, 48])
def test_a_scale_that_was_written_as_a_quotient_follows_too(size: int) -> None:
    """1/√d is not d^-½ to the last bit."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.out = nn.Linear(4, 2 * size), nn.Linear(4, 2 * size), nn.Linear(2 * size, 3)
            self.inverse = 1.0 / math.sqrt(size)

        def forward(self, x: Tensor) -> Tensor:
            q, k = (part(x).view(*x.shape[:2], 2, -1).transpose(1, 2) for part in (self.q, self.k))
            scores = (q @ k.transpose(-1, -2) * self.inverse).softmax(-1)
            answer: Tensor = self.out((scores @ k).transpose(1, 2).flatten(2))
            return answer

    model = Attends()
    couplings = trace_widths(model, [InputSpec((2, 5, 4))], heads="number")
    widen_(model, couplings, resized(couplings, 4))
    assert model.inverse == pytest.approx((4 * size) ** -0.5)


def test_ties_dtype_and_requires_grad_are_kept() -> None:
    build, inputs = MODELS["GPT-2"]
    with torch.device("meta"):
        model = build().to(torch.bfloat16)
    model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
    couplings = trace_widths(model, inputs)
    widen_(model, couplings, resized(couplings, 2))
    assert model.lm_head.weight is model.transformer.wte.weight
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "transformer.h.0.mlp.c_fc.weight"
    ]


class Scaled(nn.Module):
    """Tensors whose scale a model chose: a table, positions, a layer scale, rows that are all alike."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 48)
        self.positions = nn.Parameter(torch.randn(1, 20, 48) * 0.3 + 0.1)
        self.scale = nn.Parameter(torch.full((48,), 1e-6))
        self.rows = nn.Parameter(torch.arange(1.0, 6.0).log().repeat(48, 1))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 7)

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.table(ids) + self.positions
        found: Tensor = self.head(self.norm(x + self.scale * x * self.rows.sum(1)))
        return found


def test_what_is_no_layer_keeps_the_scale_that_its_model_gave_it() -> None:
    torch.manual_seed(0)
    model = Scaled()
    with torch.no_grad():
        model.norm.bias.fill_(0.25)
    rows = model.rows[0].clone()
    couplings = trace_widths(model, (InputSpec((2, 20), "int64"),))
    widen_(model, couplings, {name: 2 * w.size for name, w in couplings.widths.items() if not w.fixed})
    assert model.table.weight.shape == (200, 96)
    assert model.table.weight.std().item() == pytest.approx(1, rel=0.03)
    assert model.positions.std().item() == pytest.approx(0.3, rel=0.05)
    assert model.positions.mean().item() == pytest.approx(0.1, rel=0.25)
    assert model.scale.unique().tolist() == pytest.approx([1e-6])
    assert torch.equal(model.rows, rows.repeat(96, 1))
    assert (model.norm.weight.unique().tolist(), model.norm.bias.unique().tolist()) == ([1.0], [0.25])


def test_a_widened_model_learns() -> None:
    model = MODELS["residual"][0]()
    couplings = trace_widths(model, IMAGE)
    widen_(model, couplings, resized(couplings, 1.37))
    (x,), _ = make_inputs(IMAGE, "cpu")
    model(x + torch.randn_like(x)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any((p == 0).all() for n, p in model.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (lambda c: {"nothing": 3}, ["no width 'nothing'", "c1"]),
        (lambda c: {next(n for n, w in c.widths.items() if w.fixed): 5}, ["must stay"]),
        (
            lambda c: {next(n for n, w in c.widths.items() if w.multiple_of == 4): 18},
            ["multiple of 4", "nearest is 16"],
        ),
        (lambda c: {"c1": 0}, ["positive"]),
    ],
)
def test_sizes_that_cannot_be_are_refused_and_change_nothing(
    choose: Callable[..., Any], words: list[str]
) -> None:
    build, inputs = MODELS["attention"]
    model = build()
    couplings = trace_widths(model, inputs)
    shapes = [p.shape for p in model.parameters()]
    with pytest.raises(InputError) as caught:
        widen_(model, couplings, choose(couplings))
    assert all(word in str(caught.value) for word in words)
    assert [p.shape for p in model.parameters()] == shapes


def test_what_stands_for_padding_stays_zero_and_notes_on_parameters_are_kept() -> None:
    model = nn.Sequential(nn.Embedding(10, 8, padding_idx=3), nn.Linear(8, 8), nn.Linear(8, 4))
    model[1].weight._no_weight_decay = True  # as selective state spaces have it
    plan = ift.plan(model, "wide", "3/4", inputs="2x5:int64", keep_dense="none")
    wide = ift.nn.apply(plan, model)
    assert wide[0].weight.shape[1] > 8
    assert not wide[0].weight[3].any() and wide[0].weight[2].any()
    assert wide[1].weight._no_weight_decay
