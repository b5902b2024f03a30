"""Networks of which a part cannot widen: the rest does, the part keeps its widths, and the plan says so."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own customary name
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import iftplan as ift
from iftplan.base.errors import IftplanError, InfeasibleError
from iftplan.models.spec import Couplings, InputSpec
from iftplan.nn import apply, apply_, measure_applied
from iftplan.nn.meta.inputs import make_inputs
from iftplan.nn.reading.outputs import answers
from iftplan.nn.reading.read import read_model
from iftplan.nn.reading.widths.trace import trace_widths
from iftplan.plans.plan import Plan

FEATURES = (InputSpec((2, 3, 5)),)
IMAGE = (InputSpec((2, 3, 8, 8)),)
SERIES = (InputSpec((2, 5, 7)),)


def free(couplings: Couplings) -> list[int]:
    return sorted(w.size for w in couplings.widths.values() if not w.fixed)


def widened(model: nn.Module, inputs: tuple[InputSpec, ...], sparsity: Fraction = Fraction(3, 4)) -> Plan:
    """Plans, applies, measures and runs the model as Sparse Wide; outputs have to keep their shapes."""
    plan = ift.plan(read_model(model, inputs, widths=True), "wide", sparsity)
    args, kwargs = make_inputs(inputs, "cpu")
    with torch.no_grad():
        before = [t.shape for t in answers(model.eval()(*args, **kwargs))]
        wide = apply_(plan, model)
        after = [t.shape for t in answers(wide(*args, **kwargs))]
    assert after == before
    report = measure_applied(plan, wide)
    assert report.passed, report.problems
    return plan


class Filtered(nn.Module):
    """A fixed blur between two convolutions, as anti-aliased networks have it."""

    def __init__(self, blur: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.head, self.blur = nn.Linear(12, 4), blur
        self.register_buffer("f", torch.ones(8, 1, 3, 3) / 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.blur(self.f, self.a(x))).mean((2, 3)))


def test_a_filter_in_a_buffer_keeps_its_channels_and_the_rest_widens() -> None:
    plan = widened(Filtered(lambda f, x: F.conv2d(x, f, groups=8, padding=1)), IMAGE)
    assert set(plan.widths.values()) == {3, 4, 8, 24}
    assert any(
        note.startswith("a keeps its widths") and "test_held_widths.py:" in note for note in plan.notes
    )


def test_a_filter_that_is_expanded_to_the_channels_follows_them() -> None:
    model = Filtered(
        lambda f, x: F.conv2d(x, f[:1].expand(x.shape[1], -1, -1, -1), groups=x.shape[1], padding=1)
    )
    assert set(widened(model, IMAGE).widths.values()) == {3, 4, 16, 24}


class Computed(nn.Module):
    """`how` makes the weight of the middle layer."""

    def __init__(self, how: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head, self.how = nn.Linear(5, 8), nn.Linear(8, 12), nn.Linear(12, 4), how
        self.code, self.hyper = nn.Parameter(torch.zeros(6)), nn.Linear(6, 64)
        self.register_buffer("matrix", torch.zeros(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.how(self, self.a(x))))


@pytest.mark.parametrize(
    "how",
    [
        lambda s, x: F.linear(x, s.matrix) + s.hyper(s.code).mean(),
        lambda s, x: x @ s.matrix + s.hyper(s.code).mean(),
        lambda s, x: F.linear(x, s.hyper(s.code).view(8, 8)),
        lambda s, x: torch.einsum("bti,ij->btj", x, s.matrix) + s.hyper(s.code).mean(),
    ],
    ids=["linear with a buffer", "matmul with a buffer", "hypernetwork", "einsum with a buffer"],
)
def test_weights_that_are_no_parameters_keep_their_sizes(how: Callable[..., Any]) -> None:
    plan = widened(Computed(how), FEATURES)
    assert 24 in plan.widths.values()  # the inner width of b, 12 at k = 2


class FusedBias(nn.Module):
    """Query, key and value in one product; their biases are two parameters and a buffer of zeros."""

    def __init__(self, join: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.stem, self.qkv = nn.Linear(5, 8), nn.Linear(8, 24, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8))
        self.k_bias: torch.Tensor
        self.register_buffer("k_bias", torch.zeros(8), persistent=False)
        self.up, self.down, self.head, self.join = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4), join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        b, t, _ = x.shape
        bias = self.join(self.q_bias, self.k_bias, self.v_bias)
        q, k, v = F.linear(x, self.qkv.weight, bias).reshape(b, t, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind()
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1)
        return self.head(x + self.down(self.up(x)))


@pytest.mark.parametrize(
    "join", [lambda q, k, v: torch.cat((q, k, v)), lambda q, k, v: torch.stack((q, k, v)).flatten()]
)
def test_the_parts_of_a_fused_bias_stay_as_long_as_each_other(join: Callable[..., Any]) -> None:
    model = FusedBias(join)
    plan = widened(model, FEATURES)
    assert {model.q_bias.shape, model.k_bias.shape, model.v_bias.shape} == {(8,)}
    assert 32 in plan.widths.values()  # what only up and down meet


def test_no_size_becomes_nothing() -> None:
    class Rest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(5, 6), nn.Linear(5, 10), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.cat((self.a(x), self.b(x)), -1).view(*x.shape[:2], 4, 4).flatten(2))

    couplings = trace_widths(Rest(), FEATURES)
    for factor in (1, 2, 3, 10):
        sizes = {n: w.size if w.fixed else factor * w.size for n, w in couplings.widths.items()}
        shapes = {n: [d.at(sizes) for d in shape] for n, shape in couplings.shapes.items()}
        assert shapes["a.weight"][0] >= 6
        assert shapes["b.weight"][0] >= 10
        assert shapes["a.weight"][0] + shapes["b.weight"][0] == shapes["head.weight"][1]


@functools.cache
def positions(steps: int, channels: int) -> torch.Tensor:
    return torch.arange(steps * channels, dtype=torch.float32).view(steps, channels)


class Tabled(nn.Module):
    def __init__(self, table: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b, self.head, self.table = nn.Linear(5, 8), nn.Linear(8, 12), nn.Linear(12, 4), table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.head(self.b(x + self.table(x.shape[1], x.shape[2])))


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "used before"])
def test_a_table_from_a_cached_function_follows_the_width(before: bool) -> None:
    positions.cache_clear()
    if before:
        Tabled(positions)(torch.zeros(2, 3, 5))
    couplings = trace_widths(Tabled(positions), FEATURES)
    assert free(couplings) == [8, 12]
    positions.cache_clear()


def test_nothing_symbolic_stays_in_the_cache_of_a_function() -> None:
    positions.cache_clear()
    trace_widths(Tabled(positions), FEATURES)
    assert positions.cache_info().currsize == 0
    assert type(positions(3, 8)) is torch.Tensor
    assert positions(3, 8).device.type == "cpu"


def test_a_size_that_is_looked_up_stays() -> None:
    couplings = trace_widths(Tabled(lambda t, c: {8: 2.0}[c]), FEATURES)
    assert free(couplings) == [12]
    assert any("test_held_widths.py:" in w.fixed for w in couplings.widths.values() if w.size == 8)


ASKED = {
    "math.sqrt": lambda s, x: x / math.sqrt(x.shape[-1]),
    "math.log2": lambda s, x: x / math.log2(s.dim),
    "numpy.sqrt": lambda s, x: x / float(np.sqrt(x.shape[-1])),
    "numpy.sqrt of an attribute": lambda s, x: x / np.sqrt(s.dim),
    "numpy.prod": lambda s, x: (
        x.reshape(int(x.shape[0]), -1).reshape(2, int(x.shape[1]), -1) / np.prod(x.shape)
    ),
    "power": lambda s, x: x * x.shape[-1] ** -0.5,
    "a text": lambda s, x: x * float(f"{x.shape[-1]}") + len(f"{s.dim:05d}") + len(str(s.dim)),
    "half": lambda s, x: x * math.floor(s.dim * 0.5) + math.ceil(x.shape[-1] / 4),
}
FIXED = {
    "int of a root": lambda s, x: x.reshape(2, 3, int(x.shape[-1] ** 0.5), -1).flatten(2),
    "isqrt": lambda s, x: x.reshape(2, 3, math.isqrt(x.shape[-1]), -1).flatten(2),
    "int of math.sqrt": lambda s, x: x.reshape(2, 3, int(math.sqrt(x.shape[-1])), -1).flatten(2),
    "range": lambda s, x: sum(x[..., i : i + 1] for i in range(x.shape[-1])).expand(2, 3, 16),
    "numpy.ceil": lambda s, x: x.reshape(2, 3, int(np.ceil(x.shape[-1] / 4)), -1).flatten(2),
    "membership": lambda s, x: x * float(x.shape[-1] in {16, 32}),
    "a tensor of sizes": lambda s, x: x * torch.tensor(list(x.shape)).sum(),
}


class Asking(nn.Module):
    def __init__(self, ask: Callable[..., Any]) -> None:
        super().__init__()
        self.dim, self.ask = 16, ask
        self.a, self.b, self.c, self.head = (
            nn.Linear(5, 12),
            nn.Linear(12, 16),
            nn.Linear(16, 20),
            nn.Linear(20, 4),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.c(self.ask(self, self.b(self.a(x)))))


@pytest.mark.parametrize("name", ASKED)
def test_numbers_made_of_sizes_leave_them_free(name: str) -> None:
    plan = widened(Asking(ASKED[name]), FEATURES)
    assert sorted(plan.widths.values()) == [4, 5, 24, 32, 40]


@pytest.mark.parametrize("name", FIXED)
def test_a_width_whose_value_shapes_what_follows_stays_and_says_where(name: str) -> None:
    model = Asking(FIXED[name])
    couplings = trace_widths(model, FEATURES)
    assert free(couplings) == [12, 20]
    reasons = [w.fixed for w in couplings.widths.values() if w.size == 16]
    assert all("test_held_widths.py:" in reason for reason in reasons)
    widened(model, FEATURES)


def test_a_halved_size_that_is_resized_to_stays_even() -> None:
    model = Asking(lambda s, x: F.interpolate(x, scale_factor=0.5).repeat(1, 1, 2))
    couplings = trace_widths(model, FEATURES)
    assert {w.multiple_of for w in couplings.widths.values() if w.size == 16} == {2}
    widened(model, FEATURES)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("norm", "width"),
    [
        (torch.nn.utils.weight_norm, 16),
        (parametrizations.weight_norm, 16),
        (functools.partial(parametrizations.weight_norm, dim=None), 16),
        (functools.partial(parametrizations.weight_norm, dim=2), 16),
        (torch.nn.utils.spectral_norm, 8),
        (parametrizations.spectral_norm, 8),
    ],
    ids=["weight_g", "parametrized", "of all", "of the kernel", "weight_orig", "spectral"],
)
def test_a_normed_convolution_widens_or_stays_while_the_rest_goes_on(
    norm: Callable[..., Any], width: int
) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(5, 8, 3, padding=1), norm(nn.Conv1d(8, 8, 3, padding=1))
            self.c, self.d = nn.Conv1d(8, 24, 3, padding=1), nn.Conv1d(24, 48, 3, padding=1)
            self.head = nn.Linear(48, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.d(self.c(self.b(self.a(x)).relu())).mean(-1))

    model = Normed()
    plan = widened(model, SERIES)
    assert model.b.bias.shape == (width,)
    assert model.b(torch.randn(2, width, 7)).isfinite().all()
    assert (model.c.out_channels, model.d.out_channels) == (48, 96)
    assert not any(layer.role.value == "transformed" for layer in plan.layers if layer.name.startswith("b."))
    assert width == 16 or any("keep" in note for note in plan.notes)


class Queries(nn.Module):
    """Four heads of queries, one of keys and values."""

    def __init__(self, spread: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.stem, self.q, self.kv = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 8)
        self.out, self.head, self.spread = nn.Linear(16, 16), nn.Linear(16, 4), spread

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        b, t, _ = x.shape
        q = self.q(x).view(b, t, 4, -1).transpose(1, 2)
        k, v = self.kv(x).view(b, t, 1, -1).transpose(1, 2).chunk(2, -1)
        y = self.spread(q, k, v)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, t, -1)))


@pytest.mark.parametrize(
    "spread",
    [
        F.scaled_dot_product_attention,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        lambda q, k, v: F.scaled_dot_product_attention(q, k.expand(-1, 4, -1, -1), v.expand(-1, 4, -1, -1)),
        lambda q, k, v: F.scaled_dot_product_attention(q, k.repeat(1, 4, 1, 1), v.repeat_interleave(4, 1)),
        lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    ],
    ids=["broadcast", "grouped", "expanded", "repeated", "products"],
)
def test_one_head_of_keys_serves_all_heads_of_queries(spread: Callable[..., Any]) -> None:
    plan = widened(Queries(spread), FEATURES)
    assert 16 in plan.widths.values()  # keys and values, 8 at k = 2
    assert plan.heads == "number"


def test_a_module_that_cannot_widen_is_held() -> None:
    class Fussy(nn.Module):
        """Insists on its width in Python."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if str(x.shape[-1]) != "8" or f"{x.shape[-1]:d}" != "8":
                raise ValueError("eight, please")
            return self.inner(x)

    model = nn.Sequential(nn.Linear(5, 8), Fussy(), nn.Linear(8, 12), nn.Linear(12, 4))
    plan = widened(model, FEATURES)
    assert set(plan.widths.values()) == {4, 5, 8, 16, 24}  # the outputs of its inner layer are free


class Raises(nn.Module):
    """Takes no symbolic size at all."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(x.shape[-1], torch.SymInt):
            raise TypeError("an integer, please")
        return self.inner(x)


def test_a_module_that_raises_at_symbolic_sizes_is_held_with_a_note() -> None:
    model = nn.Sequential(
        nn.Linear(5, 8), Raises(), nn.Linear(8, 12), Raises12(), nn.Linear(12, 16), nn.Linear(16, 4)
    )
    plan = widened(model, FEATURES)
    assert set(plan.widths.values()) == {4, 5, 8, 12, 32}
    held = [note for note in plan.notes if "keeps its widths" in note]
    assert any(note.startswith("1 keeps its widths: it does not run at symbolic widths") for note in held)
    assert any("an integer, please" in note and "test_held_widths.py:" in note for note in held)


class Raises12(Raises):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(12, 12)


def test_repeated_blocks_are_held_together() -> None:
    blocks = [Raises() for _ in range(9)]
    model = nn.Sequential(nn.Linear(5, 8), *blocks, nn.Linear(8, 12), nn.Linear(12, 4))
    assert free(trace_widths(model, FEATURES)) == [12]


def test_where_nothing_is_left_to_widen_the_model_is_refused_with_the_line() -> None:
    model = nn.Sequential(nn.Linear(5, 8), Raises(), nn.Linear(8, 4))
    with pytest.raises(IftplanError) as caught:
        trace_widths(model, FEATURES)
    assert "module 1" in str(caught.value)
    assert "test_held_widths.py:" in str(caught.value)


def test_no_word_of_a_library_comes_out() -> None:
    class Numeric(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = nn.Linear(5, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            if isinstance(x.shape[-1], torch.SymInt):
                np.zeros(3) @ np.zeros(4)
            return self.head(x)

    with pytest.raises(InfeasibleError) as caught:
        trace_widths(Numeric(), FEATURES)
    message = str(caught.value)
    assert "test_held_widths.py:" in message and "matmul" not in message and "Error" not in message
    assert "test_held_widths.py:" in message
    assert "matmul" not in message


def test_a_value_of_a_tensor_decides_as_when_it_is_counted() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            if x.sum() > 0:
                x = self.b(x)
            for _ in range(int(x.max())):
                x = self.b(x)
            return self.head(x)

    couplings = trace_widths(Branching(), FEATURES)
    assert (
        couplings.weight_macs["b.weight"].at({n: w.size for n, w in couplings.widths.items()}) == 2 * 6 * 64
    )


def test_a_decoder_with_rotary_tables_says_that_its_heads_grow_in_number() -> None:
    import transformers as hf

    config = hf.LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    inputs = (InputSpec((2, 11), "int64", "input_ids"),)
    plan = ift.plan(read_model(hf.LlamaForCausalLM(config), inputs, widths=True), "wide", "3/4")
    assert plan.heads == "size"
    (note,) = (note for note in plan.notes if "heads" in note)
    assert note.startswith(
        "the number of heads grows in model.layers.0.self_attn and 1 more, because the size"
    )
    assert "modeling_llama.py:" in note
    applied = apply_(plan, hf.LlamaForCausalLM(config))
    attention = applied.model.layers[0].self_attn
    assert (attention.q_proj.out_features, attention.head_dim) == (64, 8)


def test_attention_that_keeps_what_was_asked_for_says_nothing() -> None:
    model = Queries(F.scaled_dot_product_attention)
    assert trace_widths(model, FEATURES).heads == "number"
    assert not trace_widths(model, FEATURES).notes


def test_a_model_that_answers_in_other_shapes_is_refused_when_it_is_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Sly(nn.Module):
        """Its output follows a width, past everything that a trace can see."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.head(self.c(self.b(self.a(x))))
            return y.repeat(1, 1, int(f"{self.a.weight.shape[0]}") // 8)

    model = Sly()
    assert free(trace_widths(model, FEATURES)) == [8, 8]  # tried, and found to be fixed by its text
    monkeypatch.setattr("iftplan.nn.reading.widths.trace.check_widened", lambda *_: None)
    plan = ift.plan(read_model(model, FEATURES, widths=True), "wide", "3/4")
    shapes = [p.shape for p in model.parameters()]
    with pytest.raises(InfeasibleError, match="outputs change from 2x3x4 to 2x3x8"):
        apply_(plan, model)
    assert [p.shape for p in model.parameters()] == shapes


class Frozen(nn.Module):
    """A batch norm of which everything is a buffer, as the backbones of detectors have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "running_var"):
            self.register_buffer(name, torch.ones(channels))
        for name in ("bias", "running_mean"):
            self.register_buffer(name, torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    "norm",
    [Frozen, nn.InstanceNorm2d, lambda c: nn.InstanceNorm2d(c, affine=True), lambda c: nn.GroupNorm(c, c)],
    ids=["frozen batch norm", "instance norm", "instance norm with weights", "a group a channel"],
)
def test_norms_of_every_kind_follow_their_channels(norm: Callable[..., Any]) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        norm(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        norm(12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    assert free(trace_widths(model, IMAGE)) == [8, 12]
    widened(model, IMAGE)
    assert model(torch.randn(2, 3, 8, 8)).abs().sum() > 0


def test_a_layer_norm_without_weights_follows_its_width() -> None:
    norm = nn.LayerNorm(8, elementwise_affine=False)
    model = nn.Sequential(nn.Linear(5, 8), norm, nn.Linear(8, 12), nn.Linear(12, 4))
    assert free(trace_widths(model, FEATURES)) == [8, 12]
    widened(model, FEATURES)
    assert model[1].normalized_shape == (16,)


def test_learned_tokens_keep_their_number() -> None:
    """Registers beside the patches: their number is in every view, and in no weight."""

    class Registers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.tokens = nn.Linear(5, 8), nn.Parameter(torch.randn(1, 3, 8))
            self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat((self.tokens.expand(len(x), -1, -1), self.stem(x)), 1)
            q, k, v = (
                part.view(len(x), x.shape[1], -1, 4).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
            )
            x = (q @ k.transpose(-1, -2)).softmax(-1) @ v
            answer: torch.Tensor = self.head(x.transpose(1, 2).flatten(2)[:, 0])
            return answer

    model, inputs = Registers(), (InputSpec((2, 6, 5)),)
    couplings = trace_widths(model, inputs, heads="number")
    assert {w.size for w in couplings.widths.values() if not w.fixed} == {8}
    widened(model, inputs)
    assert model.tokens.shape == (1, 3, 16)


def test_a_bias_that_three_parameters_make_grows_with_all_of_them() -> None:
    class Joined(FusedBias):
        def __init__(self) -> None:
            super().__init__(lambda q, k, v: torch.cat((q, k, v)))
            del self.k_bias
            self.k_bias = nn.Parameter(torch.zeros(8))

    model = Joined()
    widened(model, FEATURES)
    assert {model.q_bias.shape, model.k_bias.shape, model.v_bias.shape} == {(16,)}
    assert model.qkv.weight.shape == (48, 16)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("ran", [False, True], ids=["new", "ran before"])
@pytest.mark.parametrize(
    "norm", [parametrizations.weight_norm, weight_norm, parametrizations.spectral_norm, spectral_norm]
)
def test_a_normed_convolution_is_widened_copied_and_run(norm: Callable[..., Any], ran: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), norm(nn.Conv2d(8, 8, 3)), nn.ReLU()),
        *(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)),
    )
    model.eval()
    before = (
        model(torch.ones(1, 3, 8, 8)) if ran else None
    )  # leaves a computed weight with a graph, in the older norms
    plan = ift.plan(read_model(model, "1x3x8x8", widths=True), "wide", "1/2")
    wide = apply(plan, model)
    report = measure_applied(plan, wide)
    assert report.passed, report.problems
    assert wide[4].out_channels > 64 and wide(torch.ones(1, 3, 8, 8)).shape == (1, 4)
    if before is not None:
        assert torch.equal(model(torch.ones(1, 3, 8, 8)), before)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(8, 16)
        self.both, self.head = nn.Bilinear(16, 16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.both(self.a(x), self.b(x)))


def test_a_bilinear_layer_is_widened_in_all_three_sizes() -> None:
    model = Bilinear()
    plan = ift.plan(read_model(model, "2x8", widths=True), "wide", "1/2")
    wide = apply(plan, model)
    report = measure_applied(plan, wide)
    assert report.passed, report.problems
    assert wide.both.weight.shape == (23, 23, 23)  # ⌈16·√2⌉
    assert wide(torch.ones(2, 8)).shape == (2, 3)
