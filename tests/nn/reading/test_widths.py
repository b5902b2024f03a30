"""Couplings: every model that is found coupled is coupled rightly, and what cannot be is refused by name."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Literal

import pytest
import torch
from torch import nn

from iftplan.base.errors import MeasureError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.reading.read import read_model
from iftplan.nn.reading.widths.trace import trace_widths
from tests.support.models.widths import HEADED, IMAGE, MODELS, Attention, Tokens, classifier, conv

SLOW = {"MobileNetV2", "MobileViT", "Swin"}
CASES = [
    pytest.param(name, heads, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in MODELS
    for heads in (("number", "size") if name in HEADED else ("number",))
]
ON_META = torch.device("meta")


@cache
def traced(
    name: str, heads: Literal["number", "size"] = "number"
) -> tuple[nn.Module, Couplings, tuple[InputSpec, ...]]:
    build, inputs = MODELS[name]
    with ON_META:
        model = build()
    return model, trace_widths(model, inputs, heads=heads), inputs


def scaled(couplings: Couplings, factor: int) -> dict[str, int]:
    return {n: w.size * (1 if w.fixed else factor) for n, w in couplings.widths.items()}


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_dense_sizes_give_the_shapes_and_the_macs_of_the_meta_engine(
    name: str, heads: Literal["number", "size"]
) -> None:
    model, couplings, inputs = traced(name, heads)
    dense = scaled(couplings, 1)
    tensors: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    tensors |= dict(model.named_buffers(remove_duplicate=False))
    assert {n: tuple(d.at(dense) for d in s) for n, s in couplings.shapes.items()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }
    table = measure(model, inputs)
    products: dict[str, int] = {}
    for c in table.contractions:
        if c.weight is None:
            key = f"{c.module}:{c.operator}"
            products[key] = products.get(key, 0) + c.macs
    assert {n: p.at(dense) for n, p in couplings.weight_macs.items()} == table.by_weight()
    assert {n: p.at(dense) for n, p in couplings.product_macs.items()} == products


@pytest.mark.parametrize(("name", "heads"), CASES)
def test_nothing_is_pinned_that_could_move(name: str, heads: Literal["number", "size"]) -> None:
    # Doubled widths quadruple a weight, double a depthwise one, and double those at the two ends.
    model, couplings, _ = traced(name, heads)
    dense, double = scaled(couplings, 1), scaled(couplings, 2)
    growth = {n: p.at(double) / p.at(dense) for n, p in couplings.weight_macs.items()}
    modules = dict(model.named_modules())
    depthwise = {
        f"{n}.weight" for n, m in modules.items() if getattr(m, "groups", 1) > 1 and m.groups == m.in_channels
    }
    assert {growth.pop(n) for n in depthwise} <= {2}
    # A first convolution and a classifier, or a tied or untied head; T5's encoder and decoder share one.
    assert sorted(growth.values())[:2] in ([2, 2], [2, 4])
    assert set(sorted(growth.values())[2:]) <= {4}
    assert {p.at(double) / p.at(dense) for p in couplings.product_macs.values()} <= {2}


@pytest.mark.parametrize(
    ("name", "number", "size"), [("attention", 4, 4), ("ViT", 4, 8), ("BERT", 4, 8), ("GPT-2", 4, 8)]
)
def test_heads_say_what_attention_keeps(name: str, number: int, size: int) -> None:
    for heads, multiple in (("number", number), ("size", size)):
        _, couplings, _ = traced(name, heads)
        assert multiple in {w.multiple_of for w in couplings.widths.values()}


@pytest.mark.slow
def test_a_table_with_one_column_per_head_follows_the_number_of_heads() -> None:
    table = "swin.encoder.layers.0.blocks.0.attention.relative_position_bias.relative_position_bias_table"
    for heads, columns in (("number", 3), ("size", 6)):
        _, couplings, _ = traced("Swin", heads)
        assert [d.at(scaled(couplings, 2)) for d in couplings.shapes[table]] == [13 * 13, columns]


def test_rotary_embeddings_keep_the_size_of_a_head() -> None:
    for heads in ("number", "size"):
        _, couplings, _ = traced("Llama, grouped queries", heads)
        # Two key heads of size 8: only their number can grow, and the four query heads follow.
        (attention,) = {w.multiple_of for w in couplings.widths.values()} - {1}
        assert attention == 8
        q = couplings.shapes["model.layers.0.self_attn.q_proj.weight"][0]
        k = couplings.shapes["model.layers.0.self_attn.k_proj.weight"][0]
        assert str(q) == f"2·{k}"


@pytest.mark.parametrize(("name", "multiple"), [("grouped", 4), ("pixel shuffle, transposed, group norm", 4)])
def test_what_divides_goes_on_dividing(name: str, multiple: int) -> None:
    _, couplings, _ = traced(name)
    assert multiple in {w.multiple_of for w in couplings.widths.values()}


def test_halves_go_on_being_halves() -> None:
    _, couplings, _ = traced("shuffle")
    whole, half = couplings.shapes["0.0.weight"][0], couplings.shapes["1.branch.0.0.weight"][1]
    assert str(whole) == f"2·{half}"


@pytest.mark.parametrize(
    ("name", "parameter", "axis", "reason"),
    [
        ("residual", "1.body.0.0.weight", 0, ""),
        ("residual", "0.0.weight", 1, "an input of the model"),
        pytest.param(  # the input is padded before its first convolution
            *(
                "MobileNetV2",
                "mobilenet_v2.conv_stem.first_conv.convolution.weight",
                1,
                "an input of the model",
            ),
            marks=pytest.mark.slow,
        ),
        ("vgg, flatten into a classifier", "7.weight", 0, "output"),
        ("gated", "position", 1, "it has to be 16 in (model) at"),
        ("GPT-2", "transformer.wte.weight", 0, "output"),
        ("GPT-2", "transformer.wpe.weight", 0, "embedding transformer.wpe"),
        ("BERT", "bert.embeddings.token_type_embeddings.weight", 0, "embedding"),
        ("Llama, grouped queries", "model.embed_tokens.weight", 0, "embedding"),
    ],
)
def test_fixed_widths_have_a_reason(name: str, parameter: str, axis: int, reason: str) -> None:
    _, couplings, _ = traced(name)
    (symbol,) = couplings.shapes[parameter][axis].symbols
    assert reason in couplings.widths[symbol].fixed
    assert bool(reason) == bool(couplings.widths[symbol].fixed)


def test_tied_parameters_have_the_same_symbols() -> None:
    _, couplings, _ = traced("GPT-2")
    assert couplings.shapes["lm_head.weight"] == couplings.shapes["transformer.wte.weight"]
    assert "lm_head.weight" not in couplings.weight_macs


def test_the_model_is_left_as_it_was() -> None:
    build, inputs = MODELS["GPT-2"]
    model = build().train()
    model.transformer.h[0].eval()
    before = [(n, m.training, dict(vars(m)), list(m._forward_hooks)) for n, m in model.named_modules()]
    parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
    fastpath = torch.backends.mha.get_fastpath_enabled()
    trace_widths(model, inputs)
    assert [
        (n, m.training, dict(vars(m)), list(m._forward_hooks)) for n, m in model.named_modules()
    ] == before
    assert all(torch.equal(p, parameters[n]) for n, p in model.named_parameters())
    assert torch.backends.mha.get_fastpath_enabled() is fastpath
    assert "__float__" not in vars(torch.SymInt)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.up = 3, nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("model", "inputs", "error", "words"),
    [
        (Broken(), (InputSpec((2, 4)),), MeasureError, ["ValueError", "no such thing"]),
        (nn.Sequential(nn.Linear(5, 4)), (InputSpec((2, 4)),), MeasureError, ["module 0"]),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    model: nn.Module, inputs: tuple[InputSpec, ...], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        trace_widths(model, inputs)
    assert all(word in str(caught.value) for word in words)
    assert not any(isinstance(v, torch.SymInt) for m in model.modules() for v in vars(m).values())


def test_alike_blocks_are_told_apart_where_one_of_them_is_stuck() -> None:
    # Nine equal blocks in a row whose ends meet the input and the output: the inner widths stay free.
    blocks = [nn.Sequential(nn.Linear(7, 7), nn.ReLU()) for _ in range(9)]
    couplings = trace_widths(nn.Sequential(*blocks), (InputSpec((2, 7)),))
    assert sum(not w.fixed for w in couplings.widths.values()) == 8


def test_alike_blocks_share_their_widths() -> None:
    _, couplings, _ = traced("GPT-2, many layers")
    shapes = couplings.shapes
    assert shapes["transformer.h.0.mlp.c_fc.weight"] == shapes["transformer.h.8.mlp.c_fc.weight"]


def test_coincidences_of_sizes_couple_nothing() -> None:
    # As many tokens as channels per head, classes as channels: roles differ, so widths do.
    model = classifier(conv(3, 7), conv(7, 7), channels=7)
    couplings = trace_widths(model, IMAGE)
    free = {n for n, w in couplings.widths.items() if not w.fixed}
    assert len(free) == 2
    assert couplings.shapes["4.weight"][0].symbols.isdisjoint(free)
    attention = trace_widths(Tokens(64, Attention(64, 4)), IMAGE)
    assert prod(d.at(scaled(attention, 2)) for d in attention.shapes["mixer.qkv.weight"]) == 384 * 128


def test_an_embedding_in_front_of_a_head_without_tie_keeps_its_rows() -> None:
    model = nn.Sequential(nn.Embedding(50, 6), nn.Linear(6, 9), nn.Linear(9, 3))
    couplings = trace_widths(model, (InputSpec((2, 5), "int64"),))
    assert [w.size for w in couplings.widths.values() if not w.fixed] == [6, 9]


class Pooling(nn.Module):
    """A learnt query attends to the rows, as the pooling heads of vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)
        self.query = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        query = self.query.expand(x.shape[0], -1, -1)
        return self.last(nn.functional.scaled_dot_product_attention(query, x, x)[:, 0])


def test_a_learnt_query_is_an_operand_of_attention_and_no_linear_layer() -> None:
    model = Pooling()
    found = trace_widths(model, (InputSpec((2, 6, 5)),))
    sizes = {name: width.size for name, width in found.widths.items()}
    assert "query" not in found.weight_macs
    assert found.product_macs[":attention"].at(sizes) == 2 * 6 * (8 + 8)
    wide = {name: width.size if width.fixed else 16 for name, width in found.widths.items()}
    assert found.product_macs[":attention"].at(wide) == 2 * 6 * (16 + 16)
    assert [layer.weight for layer in read_model(model, "2x6x5").layers] == ["first.weight", "last.weight"]
