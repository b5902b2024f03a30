"""Reading a model: exact MACs per weight, layouts, and roles that follow the dataflow, not names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  torch's own convention
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from iftplan import api
from iftplan.base.errors import InputError, MeasureError
from iftplan.models.spec import InputSpec, Kind, LayerSpec, ModelSpec
from iftplan.models.zoo.entries import ZOO
from iftplan.nn.reading.read import read_model
from iftplan.nn.sources import build

X = InputSpec((2, 6))


def names(spec: ModelSpec, role: str) -> list[str]:
    return [w.layer.name for w in spec.layers if getattr(w, role)]


def by_name(spec: ModelSpec) -> dict[str, LayerSpec]:
    return {w.layer.name: w.layer for w in spec.layers}


@pytest.mark.parametrize(
    ("name", "macs"),
    [("resnet18-cifar", 555_468_800), ("resnet34", 3_663_761_408), ("resnet50", 4_089_184_256)],
)
def test_published_macs(name: str, macs: int) -> None:
    spec = read_model(f"zoo:{name}")
    assert spec.macs == macs
    assert spec.inputs == ZOO[name].inputs
    assert spec.source == f"zoo:{name}"


def test_gpt3_small_is_its_closed_form() -> None:
    spec = read_model("zoo:gpt3-small")
    tokens, width, vocabulary, layers = 1024, 768, 50257, 12
    assert sum(w.layer.dense_macs for w in spec.layers) == tokens * (
        layers * 12 * width**2 + width * vocabulary
    )
    assert sum(p.macs for p in spec.products) == layers * 2 * tokens**2 * width
    assert len(spec.products) == layers


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_model_has_one_entry_and_its_exits(name: str) -> None:
    spec = read_model(f"zoo:{name}")
    parameters = dict(build(f"zoo:{name}").named_parameters())
    exits = {"retinanet-r18": ["head.classes.8", "head.boxes.8"]}
    assert names(spec, "first") == [spec.layers[0].layer.name]
    assert names(spec, "last") == exits.get(name, [spec.layers[-1].layer.name])
    assert all(w.layer.weights == parameters[w.weight].numel() for w in spec.layers)
    matrices = {n for n, p in parameters.items() if p.dim() > 1 and n.endswith("weight")}
    assert matrices <= {w.weight for w in spec.layers}


def test_a_tied_head_is_two_layers_of_one_weight() -> None:
    layers = {w.layer.name: w for w in read_model("zoo:gpt3-small").layers}
    embedding, head = layers["transformer.wte"], layers["lm_head"]
    assert embedding.weight == head.weight == "transformer.wte.weight"
    assert (embedding.layer.kind, embedding.layer.dense_macs) == (Kind.EMBEDDING, 0)
    assert (head.layer.in_channels, head.layer.out_channels) == (768, 50257)
    assert (embedding.first, embedding.last, head.first, head.last) == (True, False, False, True)
    assert embedding.unmaskable
    assert "transformer.wte" in head.unmaskable
    assert layers["transformer.h.0.attn.c_attn"].unmaskable == ""


def test_transformers_conv1d_has_its_inputs_in_rows() -> None:
    layer = by_name(read_model("zoo:gpt3-small"))["transformer.h.0.mlp.c_fc"]
    assert (layer.in_channels, layer.out_channels, layer.positions) == (768, 3072, 1024)


class Functional(nn.Module):
    """Raw parameters in both layouts, a square one among them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows_in = nn.Parameter(torch.randn(6, 4))
        self.square_out = nn.Parameter(torch.randn(4, 4))
        self.rows_out = nn.Parameter(torch.randn(3, 4))
        self.summed = nn.Parameter(torch.randn(3, 5))
        self.masked = nn.Parameter(torch.randn(5, 5))
        self.register_buffer("mask", torch.ones(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x @ self.rows_in, self.square_out)
        x = torch.einsum("bi,io->bo", F.linear(x, self.rows_out), self.summed)
        return x @ (self.masked * self.mask)


def test_raw_parameters_in_either_layout() -> None:
    layers = by_name(read_model(Functional(), [X]))
    shapes = {name: (layer.in_channels, layer.out_channels) for name, layer in layers.items()}
    assert shapes["rows_in"] == (6, 4)
    assert shapes["square_out"] == (4, 4)
    assert shapes["rows_out"] == (4, 3)
    assert shapes["summed"] == (3, 5)
    assert [layers[n].positions for n in ("rows_in", "square_out", "rows_out", "summed")] == [2, 2, 2, 2]


def test_a_masked_weight_keeps_its_place_in_the_graph() -> None:
    spec = read_model(Functional(), [X])
    assert (names(spec, "first"), names(spec, "last")) == (["rows_in"], ["masked"])
    assert spec.macs == 2 * (6 * 4 + 4 * 4 + 4 * 3 + 3 * 5 + 5 * 5)


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Linear(6, 4), (2, 3, 6), (Kind.LINEAR, 6, 4, (), 1, 6, False)),
        (nn.Conv1d(4, 8, 5), (2, 4, 9), (Kind.CONV1D, 4, 8, (5,), 1, 10, False)),
        (nn.Conv2d(4, 8, 3, stride=2), (1, 4, 9, 7), (Kind.CONV2D, 4, 8, (3, 3), 1, 12, False)),
        (nn.Conv2d(4, 8, 3, groups=2), (1, 4, 5, 5), (Kind.CONV2D, 4, 8, (3, 3), 2, 9, False)),
        (nn.Conv2d(4, 8, 3, groups=4), (1, 4, 5, 5), (Kind.CONV2D, 4, 8, (3, 3), 4, 9, True)),
        (nn.Conv2d(1, 8, 3), (1, 1, 5, 5), (Kind.CONV2D, 1, 8, (3, 3), 1, 9, False)),
        (nn.Conv3d(2, 4, (1, 2, 3)), (1, 2, 3, 3, 3), (Kind.CONV3D, 2, 4, (1, 2, 3), 1, 6, False)),
        (
            nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
            (1, 4, 5, 5),
            (Kind.CONV_TRANSPOSE2D, 4, 6, (3, 3), 2, 25, False),
        ),
        (nn.ConvTranspose1d(4, 6, 3), (1, 4, 5), (Kind.CONV_TRANSPOSE1D, 4, 6, (3,), 1, 5, False)),
    ],
)
def test_layer_kinds(module: nn.Module, shape: tuple[int, ...], expected: tuple[object, ...]) -> None:
    (weight_layer,) = read_model(nn.Sequential(module), [InputSpec(shape)]).layers
    layer = weight_layer.layer
    found = (layer.kind, layer.in_channels, layer.out_channels, layer.kernel, layer.groups, layer.positions)
    assert (*found, layer.depthwise) == expected
    assert (weight_layer.first, weight_layer.last, weight_layer.unmaskable) == (True, True, "")
    assert weight_layer.class_name == type(module).__name__
    assert layer.weights == module.get_parameter("weight").numel()


class Block(nn.Module):
    """A residual block: what it adds to is the output too, but a later layer reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(x).relu())


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 6)
        self.trunk = Block()
        self.classes, self.boxes = nn.Linear(6, 3), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, object]:
        z = self.trunk(self.left(x) * self.right(y))
        return {"classes": self.classes(z), "boxes": [self.boxes(z).sigmoid()]}


class MaskedAttention(nn.Module):
    """The input's own mask meets the values after a weight: the output projection is not first."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Embedding(10, 6)  # a misleading name on purpose
        self.value, self.embedding = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        keep = (tokens > 0).float()
        return self.embedding((keep[:, None, :] * keep[:, :, None]) @ self.value(self.classifier(tokens)))


class WrittenInPlace(nn.Module):
    """Two layers write their halves of the output through views."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        canvas = torch.zeros(x.shape[0], 8, device=x.device)
        canvas[:, :6] = self.trunk(x)
        trunk = canvas[:, :6].clone()
        output = torch.zeros(x.shape[0], 8, device=x.device)
        output[:, :4] = self.left(trunk)
        output[:, 4:] = self.right(trunk)
        return output


@pytest.mark.parametrize(
    ("model", "inputs", "first", "last"),
    [
        (TwoHeads, (X, X), ["left", "right"], ["classes", "boxes"]),
        (MaskedAttention, (InputSpec((1, 5), "int64"),), ["classifier"], ["embedding"]),
        (WrittenInPlace, (X,), ["trunk"], ["left", "right"]),
        (lambda: nn.Sequential(Block(), Block()), (X,), ["0.up"], ["1.down"]),
        (
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2),
            (InputSpec((1, 5, 6)),),
            ["layers.0.self_attn.in_proj_weight"],
            ["layers.1.linear2"],
        ),
    ],
)
def test_roles_follow_the_dataflow(
    model: Callable[[], nn.Module], inputs: tuple[InputSpec, ...], first: list[str], last: list[str]
) -> None:
    spec = read_model(model(), inputs)
    assert names(spec, "first") == first
    assert names(spec, "last") == last


def test_a_shared_layer_adds_up_its_calls() -> None:
    shared = nn.Linear(6, 6, bias=False)
    (layer,) = read_model(nn.Sequential(shared, nn.ReLU(), shared), [X]).layers
    assert layer.layer.positions == 4
    assert (layer.first, layer.last) == (True, True)


def test_unequal_use_is_kept_exact_and_unmaskable() -> None:
    decoder = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    spec = read_model(decoder, [InputSpec((1, 5, 8)), InputSpec((1, 7, 8))])
    cross = next(w for w in spec.layers if w.weight == "multihead_attn.in_proj_weight")
    assert cross.layer.dense_macs == 5 * 8 * 8 + 7 * 2 * 8 * 8  # queries, then keys and values
    assert "not equally often" in cross.unmaskable


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=6),
    st.integers(1, 5),
    st.booleans(),
)
def test_random_perceptrons(widths: list[int], batch: int, bias: bool) -> None:
    pairs = list(pairwise(widths))
    model = nn.Sequential(*(nn.Linear(a, b, bias=bias) for a, b in pairs))
    spec = read_model(model, [InputSpec((batch, widths[0]))])
    assert [(w.layer.in_channels, w.layer.out_channels) for w in spec.layers] == pairs
    assert spec.macs == batch * sum(a * b for a, b in pairs)
    assert names(spec, "first") == ["0"]
    assert names(spec, "last") == [str(len(pairs) - 1)]


def test_reading_leaves_a_network_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    read_model(model, [X])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_missing_inputs_are_asked_for() -> None:
    with pytest.raises(InputError, match="`inputs='1x3x224x224'`"):
        read_model(nn.Linear(6, 6))


def test_guessed_inputs_are_said_to_be_guessed(tmp_path: Path) -> None:
    config = {"model_type": "clip", "architectures": ["CLIPModel"]}  # needs an image beside its text
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MeasureError, match=r"input 1x77:int64 was guessed: .*`inputs="):
        read_model(f"hf:{tmp_path}")


def test_inputs_that_do_not_fit_are_a_measuring_error() -> None:
    with pytest.raises(MeasureError) as refusal:
        read_model(nn.Linear(6, 6), [InputSpec((2, 7))])
    assert "\n" not in str(refusal.value)


class Asked(nn.Module):
    """What a batch names, of one table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        found: Tensor = self.head(self.table(batch["ids"]).relu())
        return found


@pytest.mark.parametrize("wrong", ["2x3:float32", 3, None, torch.zeros(2, 3)], ids=str)
def test_a_read_that_failed_leaves_no_trace_in_the_process(wrong: object) -> None:
    # What hides operators from modes lived on in the frames of the exception, and every later read failed.
    net, batch = Asked(), {"ids": torch.zeros(2, 3, dtype=torch.long)}
    hidden = str(torch._C._dispatch_tls_local_exclude_set())
    expected = [api.read_model(net, batch) for _ in range(3)]
    kept = []
    for _ in range(2):
        with pytest.raises(MeasureError) as caught:
            api.read_model(net, {"ids": wrong})
        kept.append(caught)
    assert str(torch._C._dispatch_tls_local_exclude_set()) == hidden
    assert [api.read_model(net, batch) for _ in range(3)] == expected
    assert len(kept) == 2, "the exceptions live on, as in a notebook"


def test_widths_are_found_or_refused_by_name() -> None:
    spec = read_model("zoo:resnet18-cifar", widths=True)
    assert spec.refusal == ""
    assert spec.couplings is not None
    assert {w.weight for w in spec.layers} <= set(spec.couplings.weight_macs)
    assert read_model("zoo:resnet18-cifar").couplings is None


LLAMA_70B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
READ_70B = """
import json, pathlib, sys, time
from iftplan.nn.reading.read import read_model
from iftplan.models.spec import InputSpec
start = time.perf_counter()
spec = read_model(sys.argv[1], [InputSpec((1, 2048), "int64")])
seconds = time.perf_counter() - start
# Not getrusage: what that says of a new process begins with the peak of the process that started it.
peak = int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"macs": spec.macs, "layers": len(spec.layers), "bytes": peak, "seconds": seconds}))
"""


def test_a_70_billion_parameter_model_is_read_without_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_70B))
    output = subprocess.check_output([sys.executable, "-c", READ_70B, f"hf:{path}"], text=True)
    read = json.loads(output)
    tokens, width, inner, kv, vocabulary, layers = 2048, 8192, 28672, 1024, 128256, 80
    block = 2 * width * width + 2 * width * kv + 3 * width * inner
    closed_form = tokens * (layers * block + width * vocabulary) + layers * 2 * tokens**2 * width
    assert read["macs"] == closed_form
    assert read["layers"] == 80 * 7 + 2
    assert read["bytes"] < 2 * 2**30
    print(f"70B at 2048 tokens: {read['seconds']:.2f} s, {read['bytes'] / 2**20:.0f} MiB peak")


def test_a_module_under_two_names_is_as_before() -> None:
    # Its weights are swapped for symbolic ones while it is read, under one of its names only.
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 3)
            self.middle = self.alias = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.alias(self.middle(self.first(x))))

    model = Twice()
    before = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    read_model(model, (InputSpec((2, 8)),), widths=True)
    assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == before


def test_a_sparse_adjacency_is_no_obstacle() -> None:
    class Graph(nn.Module):
        adjacency: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
            self.register_buffer("adjacency", torch.eye(4).to_sparse())

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.sparse.mm(self.adjacency, self.a(x)).relu())

    spec = read_model(Graph(), [InputSpec((4, 6))], widths=False)
    assert [(layer.layer.name, layer.first, layer.last) for layer in spec.layers] == [
        ("a", True, False),
        ("b", False, True),
    ]
