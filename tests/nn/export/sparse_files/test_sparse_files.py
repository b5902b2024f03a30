"""Files of sparse networks: the same network to the bit, in few bytes, dense or never dense; bad files refused by name."""

from __future__ import annotations

import copy
import json
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iftplan import nn as inn
from iftplan.base.errors import InputError, StaleError
from iftplan.masks import parse_mask
from iftplan.nn.export.sparse_files.codes import Code, decode, encode, smallest_code
from iftplan.nn.layers.stacks import Stack, note_stack_
from iftplan.nn.masks.masked_weights import (
    MaskedWeight,
    drawn_mask,
    masked_weights,
    matrix_shape,
    register_mask_,
)
from iftplan.nn.sources.zoo.conv1d import Conv1D

safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors, which transformers brings")


class Network(nn.Module):
    """Weights in every layout, one that two layers share, and numbers that are no floats."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, groups=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2, groups=2)
        self.rows = Conv1D(24, 8)
        self.head = nn.Linear(24, 12)
        self.again = nn.Linear(24, 12)
        self.again.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.norm(self.body(self.stem(x).relu())).relu()).mean((2, 3))
        x = self.rows(x).relu()
        y: Tensor = self.head(x) + self.again(x)
        return y


X = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def masked(structure: str = "unstructured", density: float = 0.25) -> Network:
    torch.manual_seed(0)
    net, kind = Network().eval(), parse_mask(structure)
    for name in ("stem", "body", "up", "rows", "head"):
        weight = MaskedWeight(f"{name}.weight", net.get_submodule(name), "weight")
        outputs, inputs = matrix_shape(weight)
        nnz = kind.close(((inputs, outputs),), int(density * outputs * inputs))
        mask = drawn_mask(weight, kind, nnz, torch.Generator().manual_seed(2))
        register_mask_(weight, mask, kind)
    net.again.register_buffer("weight_mask", net.head._buffers["weight_mask"])
    inn.enforce_(net)
    return net


def same(one: nn.Module, other: nn.Module) -> None:
    """Equal to the bit, masks and their structures too."""
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    for name, tensor in one.state_dict().items():
        assert tensor.dtype == theirs[name].dtype
        bits = [x.contiguous().view(-1).view(torch.uint8) for x in (tensor, theirs[name]) if x.dim()]
        assert not bits or torch.equal(*bits), name
    noted = {weight.name: weight.structure for weight in masked_weights(one)}
    assert noted == {weight.name: weight.structure for weight in masked_weights(other)}


@pytest.mark.parametrize(
    "structure", ["unstructured", "1:4", "2:4", "block2x2", "fan-in", "channel", "diagonal"]
)
def test_a_network_comes_back_to_the_bit(structure: str, tmp_path: Path) -> None:
    net = masked(structure, 0.5)
    net.head.weight.data[net.head.weight_mask] = -0.0
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    again = inn.load_sparse_(Network().eval(), file)
    net.again._buffers["weight_mask"] = net.head._buffers[
        "weight_mask"
    ]  # one of them is noted without its structure
    noted = vars(again.again).pop("_mask_structures")
    assert noted == {"weight": structure}
    same(net, again)
    assert again.again.weight is again.head.weight
    assert torch.equal(net(X), again(X))
    fresh = inn.load_masked_(Network().eval(), inn.load_sparse(file))
    assert torch.equal(net(X), fresh(X))


def test_codes_of_structures_are_small(tmp_path: Path) -> None:
    """By hand: 2:4 has six choices, three bits for a group of four; a block one bit; a channel one."""
    bytes_of = {
        "unstructured": 24 * 12 / 8,
        "1:4": 72 * 2 / 8,
        "2:4": 72 * 3 / 8,
        "block2x2": 72 / 8,
        "channel": 12 / 8,
    }
    for structure, expected in bytes_of.items():
        file = inn.save_sparse(
            masked(structure, 0.5 if structure != "1:4" else 0.25), tmp_path / "net.safetensors"
        )
        assert len(safetensors.load_file(file)["head.weight.mask"]) == -(-expected // 1), structure


def test_a_file_takes_what_it_keeps(tmp_path: Path) -> None:
    """A layer of 512×512 at 1/16 in float32: 16384·4 bytes of values, and one byte for each gap instead of a bit for all."""
    net = nn.Sequential(nn.Linear(512, 512, bias=False))
    mask = torch.zeros(512, 512, dtype=torch.bool)
    mask.view(-1)[::16] = True
    net[0].register_buffer("weight_mask", mask)
    sizes = {
        dtype: inn.save_sparse(net, tmp_path / "net.safetensors", dtype=dtype).stat().st_size
        for dtype in (None, torch.bfloat16, torch.int8)
    }
    header = 700
    assert 16384 * 5 < sizes[None] < 16384 * 5 + header
    assert 16384 * 3 < sizes[torch.bfloat16] < 16384 * 3 + header
    assert 16384 * 2 + 2048 < sizes[torch.int8] < 16384 * 2 + 2048 + header


@pytest.mark.parametrize("kept", range(6))
def test_ranks_number_every_choice_once(kept: int) -> None:
    rows = torch.zeros(comb(5, kept), 5, dtype=torch.bool)
    for row, chosen in zip(rows, combinations(range(5), kept), strict=True):
        row[list(chosen)] = True
    content = encode(rows, "ranks")
    width = (comb(5, kept) - 1).bit_length()
    assert len(content) == -(-len(rows) * width // 8)
    assert torch.equal(decode(content, "ranks", rows.shape[0], 5, kept), rows)


@pytest.mark.parametrize("code", ["bits", "gaps"])
@pytest.mark.parametrize(
    "places", [[], [0], [999], [0, 254, 255, 256, 511, 767, 999], [255], [256], [510, 511]]
)
def test_codes_are_inverted(code: Code, places: list[int]) -> None:
    units = torch.zeros(1, 1000, dtype=torch.bool)
    units[0, places] = True
    assert torch.equal(decode(encode(units, code), code, 1, 1000, None), units)


def test_the_smallest_code_is_taken() -> None:
    sparse, even = torch.zeros(4, 800, dtype=torch.bool), torch.zeros(800, 4, dtype=torch.bool)
    sparse[:, ::50] = True
    even[:, :2] = True
    assert smallest_code(sparse)[0] == "gaps"
    assert smallest_code(~sparse)[0] == "bits"
    assert smallest_code(even)[0] == "ranks"


def test_finalized_networks_have_small_files_too(tmp_path: Path) -> None:
    net = inn.finalize(masked())
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    dense = tmp_path / "dense.safetensors"
    safetensors.save_model(net, str(dense))
    assert file.stat().st_size < dense.stat().st_size
    again = inn.load_sparse_(Network().eval(), file)
    assert not [*masked_weights(again)]
    same(net, again)
    pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")
    compact = inn.load_sparse_(Network().eval(), file, execution="compact")
    torch.testing.assert_close(compact(X), net(X))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    net = masked().to(dtype)
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    assert safetensors.load_file(file)["head.weight.values"].dtype is dtype
    again = inn.load_sparse_(Network().eval().to(dtype), file)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_values_of_eight_bits_are_off_by_half_a_step(tmp_path: Path) -> None:
    net = masked()
    file = inn.save_sparse(net, tmp_path / "net.safetensors", dtype=torch.int8)
    again = inn.load_sparse_(Network().eval(), file)
    for weight, other in zip(masked_weights(net), masked_weights(again), strict=True):
        assert torch.equal(weight.mask, other.mask)
        axis = {"rows": (0,), "up": None}.get(
            weight.name.split(".")[0], tuple(range(1, weight.parameter.dim()))
        )
        if axis is not None:  # scales are of outputs: the largest weight of each over 127
            step = weight.parameter.abs().amax(axis, keepdim=True) / 127
            assert bool(((weight.parameter - other.parameter).abs() <= step * 0.500001).all())


@pytest.mark.parametrize("on_meta", [False, True])
def test_compact_layers_are_made_without_dense_weights(on_meta: bool, tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")
    net: Any = masked()
    del net.again, net.up  # neither a shared weight nor a transposed convolution can be compact
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    shell = copy.deepcopy(net)
    for weight in list(masked_weights(shell)):
        del weight.module._buffers["weight_mask"]
    shell = shell.to("meta") if on_meta else shell
    compact = inn.load_sparse_(shell, file, execution="compact")
    assert [name for name, _ in compact.named_parameters() if name.endswith("values")] == [
        "stem.values",
        "rows.values",
        "head.values",
    ]
    assert not any(tensor.is_meta for tensor in compact.state_dict().values())
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(compact.stem(x), net.stem(x))
    torch.testing.assert_close(compact.rows(torch.ones(5, 8)), net.rows(torch.ones(5, 8)))
    twice = inn.save_sparse(compact, tmp_path / "twice.safetensors")
    assert twice.read_bytes() == file.read_bytes()
    same(net, inn.expand_(compact))


def test_sparse_execution_out_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")
    net = masked()
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    again = inn.load_sparse_(Network().eval(), file, execution="sparse")
    assert type(again.stem).__name__ == "SparseConv2d"
    torch.testing.assert_close(again(X), net(X))
    small = nn.Sequential(nn.ConvTranspose2d(4, 4, 2))
    small[0].register_buffer("weight_mask", torch.rand(4, 4, 2, 2) < 0.3)
    file = inn.save_sparse(small, tmp_path / "small.safetensors")
    with pytest.raises(InputError, match="no linear layer or convolution that sparse kernels can run"):
        inn.load_sparse_(small, file, execution="compact")


def test_compressed_rows_of_torch_out_of_a_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5)).eval()
    for layer in (net[0], net[2]):
        layer.register_buffer("weight_mask", torch.rand(layer.get_parameter("weight").shape) < 0.3)
    inn.enforce_(net)
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    state = inn.load_sparse(file, layout="csr")
    assert state["0.weight"].layout is torch.sparse_csr
    assert torch.equal(state["0.weight"].to_dense(), net[0].get_parameter("weight"))
    plain = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5)).eval()
    plain.load_state_dict(state, assign=True)
    x = torch.randn(7, 12)
    torch.testing.assert_close(plain(x), net(x))


def test_experts_of_a_stack(tmp_path: Path) -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8, 4))

    net = Stacked()
    note_stack_(net, "weight", Stack(3, inputs_first=True))
    weight = MaskedWeight("weight", net, "weight")
    register_mask_(
        weight, drawn_mask(weight, parse_mask("2:4"), 48, torch.Generator().manual_seed(0)), parse_mask("2:4")
    )
    inn.enforce_(net)
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    assert len(safetensors.load_file(file)["weight.mask"]) == 24 * 3 // 8
    same(net, inn.load_sparse_(Stacked(), file))


def test_onnx_out_of_a_file_has_the_zeros_where_runtimes_look(tmp_path: Path) -> None:
    """Weights are initializers that products read at once: none is made sparse by another operator."""
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript, of the extra onnx")
    onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra onnx")
    file = inn.save_sparse(masked(), tmp_path / "net.safetensors")
    inn.to_onnx(inn.load_sparse_(Network().eval(), file), X, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer if len(w.dims) > 1}
    products = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    read = [weights[node.input[1]] for node in products]
    assert [float((w == 0).mean()) for w in read] == [0.75] * 6  # two layers share a weight
    assert sorted(weights) == sorted({node.input[1] for node in products})


def damaged(file: Path, change: Any) -> Path:
    """The file with another account of itself."""
    tensors = safetensors.load_file(file)
    with safetensors.safe_open(file, "pt") as held:
        metadata = held.metadata()
    document = json.loads(metadata["iftplan.sparse"])
    change(document, tensors)
    metadata["iftplan.sparse"] = json.dumps(document)
    safetensors.save_file(tensors, file, metadata)
    return file


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d, t: t.update({"head.weight.values": t["head.weight.values"][:-1].clone()}), "head.weight is damaged: its mask keeps 72 weights, and 71 values are there"),
        (lambda d, t: t.pop("head.weight.mask"), "head.weight.mask is not there"),
        (lambda d, t: t.update({"head.weight.mask": t["head.weight.mask"][:-1].clone()}), "head.weight is damaged: it has 35 bytes where 36 are needed"),
        (lambda d, t: d["weights"]["head.weight"].update(size=1), "1×1 units are not those of 288 weights"),
        (lambda d, t: d["weights"]["head.weight"].update(shape=[288]), "is not of this Network: again.weight, head.weight differ"),
        (lambda d, t: d["weights"]["head.weight"].update(shape=[1 << 40, 1 << 40]), "axes of its matrix are not those of its shape"),
        (lambda d, t: d["weights"]["head.weight"].update(dtype="nn"), "its type or a size is impossible"),
        (lambda d, t: d["weights"]["head.weight"].update(structure="5:4"), "head.weight is damaged: "),
        (lambda d, t: d["weights"]["head.weight"].update(code="zip"), "weights.head.weight.code"),
        (lambda d, t: d["weights"]["head.weight"].update(more=1), "weights.head.weight.more"),
        (lambda d, t: d.update(schema="iftplan.sparse/9"), "is of the kind 'iftplan.sparse/9'"),
        (lambda d, t: d.update(shared={"again.weight": "nobody"}), "nobody should be a tensor once"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_by_name(change: Any, says: str, tmp_path: Path) -> None:
    file = damaged(inn.save_sparse(masked(), tmp_path / "net.safetensors"), change)
    net = Network()
    before = copy.deepcopy(net)
    with pytest.raises((InputError, StaleError), match=says):
        inn.load_sparse_(net, file)
    same(before, net)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not begin with the length of a header"),
        (b"PK\x03\x04 a zip", "does not begin with the length of a header"),
        ((200).to_bytes(8, "little") + b'{"a":', "is cut off: its header has 200 bytes, and 5 are there"),
        ((8).to_bytes(8, "little") + b'{"a": 1}', "the header's a has not the keys"),
        ((8).to_bytes(8, "little") + b"{broken ", "its header is not JSON"),
        ((2).to_bytes(8, "little") + b"{}", "holds plain tensors, not a sparse network"),
    ],
)
def test_strangers_files_are_refused_by_name(content: bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says):
        inn.load_sparse(file)


def test_a_file_that_is_cut_off_says_so_wherever_it_is_cut(tmp_path: Path) -> None:
    file = inn.save_sparse(masked(), tmp_path / "net.safetensors")
    content = file.read_bytes()
    for length in (*range(0, 20), *range(20, len(content), 997), len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut off|not a safetensors file"):
            inn.load_sparse(file)
    file.write_bytes(content + b"more")
    with pytest.raises(InputError, match="is damaged: its header describes"):
        inn.load_sparse(file)
    with pytest.raises(InputError, match="cannot be read"):
        inn.load_sparse(tmp_path / "nothing.safetensors")


def test_what_cannot_be_saved_is_said(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    with pytest.raises(InputError, match="no weight of Linear has a mask or enough zeros"):
        inn.save_sparse(nn.Linear(4, 4), file)
    with pytest.raises(InputError, match="is no type for kept values"):
        inn.save_sparse(masked(), file, dtype=torch.int64)
    with pytest.raises(InputError, match="on the meta device"):
        inn.save_sparse(masked().to("meta"), file)
    with pytest.raises(InputError, match=r"cannot be written|no folder|No such"):
        inn.save_sparse(masked(), tmp_path / "no" / "net.safetensors")
    assert not file.exists()


def test_a_file_of_another_network_changes_nothing(tmp_path: Path) -> None:
    file = inn.save_sparse(masked(), tmp_path / "net.safetensors")
    other = nn.Linear(3, 4)
    with pytest.raises(StaleError, match="is not of this Linear"):
        inn.load_sparse_(other, file)


def test_a_module_under_two_names_and_a_tie_with_one_mask(tmp_path: Path) -> None:
    """Parts of a state dict that are the same tensors are stored once, and masks stay where they were."""
    one, other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    net = nn.ModuleDict({"a": other, "b": one, "c": one})
    other.weight = one.weight
    one.register_buffer("weight_mask", torch.rand(8, 8) < 0.5)
    inn.enforce_(net)
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    assert sorted(safetensors.load_file(file)) == ["b.weight.mask", "b.weight.values"]
    again = copy.deepcopy(net)
    del again["b"]._buffers["weight_mask"]
    again["b"].weight.data.zero_()
    inn.load_sparse_(again, file)
    assert "a.weight_mask" not in again.state_dict()
    found, held = again.state_dict(), net.state_dict()
    assert all(torch.equal(found[name], held[name]) for name in ("a.weight", "c.weight_mask"))
    assert inn.load_sparse(file).keys() == net.state_dict().keys()


def test_other_readers_of_the_format_read_the_file(tmp_path: Path) -> None:
    net = masked()
    file = inn.save_sparse(net, tmp_path / "net.safetensors")
    tensors = safetensors.load_file(file)
    assert torch.equal(tensors["head.weight.values"], net.head.weight[net.head.weight_mask])
    assert torch.equal(tensors["norm.running_var"], net.norm.running_var)


def test_what_is_all_tied_and_sparse_stays_tied_from_the_meta_device(tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
        net[1].weight = net[0].weight
        return net

    torch.manual_seed(0)
    net = inn.sparsify(build(), "1/2", keep_dense="none")
    inn.save_sparse(net, tmp_path / "net.safetensors")
    with torch.device("meta"):
        empty = build()
    found = inn.load_sparse_(empty, tmp_path / "net.safetensors")
    assert found[1].weight is found[0].weight
    assert torch.equal(found.get_parameter("0.weight"), net.get_parameter("0.weight"))


def test_a_file_of_another_type_gives_a_model_one_type(tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 4))

    torch.manual_seed(0)
    net = inn.sparsify(build(), "1/2", keep_dense="none").bfloat16()
    inn.save_sparse(net, tmp_path / "net.safetensors")
    with torch.device("meta"):
        empty = build()
    found = inn.load_sparse_(empty, tmp_path / "net.safetensors")
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert found(torch.randn(2, 8)).shape == (2, 4)


def test_a_masked_module_under_two_names_is_loaded_and_compact_layers_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    net = nn.ModuleDict({"b": layer, "c": layer})
    register_mask_(
        MaskedWeight("b.weight", layer, "weight"), torch.rand(64, 64) < 0.1, parse_mask("unstructured")
    )
    inn.enforce_(net)
    inn.save_sparse(net, tmp_path / "net.safetensors")
    assert inn.load_sparse_(net, tmp_path / "net.safetensors") is net
    compact = inn.compact_(inn.sparsify(nn.Sequential(nn.Linear(64, 64)), "9/10", keep_dense="none"))
    with pytest.raises(StaleError, match="has compact layers"):
        inn.load_sparse_(compact, tmp_path / "net.safetensors")
