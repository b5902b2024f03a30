"""`iftplan bench --device cuda`: which backends there are, why others are left out; on a GPU, that they run."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.base.errors import InputError
from iftplan.masks import parse_mask
from iftplan.nn.timing.bench import bench
from iftplan.nn.timing.cuda import cuda_bench, device_candidates
from iftplan.nn.timing.work import largest_difference
from iftplan.plans.speed.tables import bench_document, bench_table
from iftplan.plans.speed.timings import BACKENDS, Bench, LayerPair, Measured, Timing, pair_of_layer
from tests.support.cli_runs import many

HERE = torch.device("cpu")
without = pytest.mark.skipif(
    torch.cuda.is_available(), reason="a CUDA device is here, and nothing is refused"
)


def pair(
    text: str = "linear:96-64@8", structure: str = "unstructured", sparsity: str = "1/2", multiple: int = 64
) -> LayerPair:
    return pair_of_layer(text, Fraction(sparsity), parse_mask(structure), multiple=multiple)


@pytest.mark.parametrize("structure", ["unstructured", "2:4", "block16x16", "fan-in"])
def test_channels_are_multiples_that_tensor_cores_take(structure: str) -> None:
    found = pair("linear:100-60@9", structure)
    assert found.wide.in_channels % 64 == found.wide.out_channels % 64 == 0
    assert 0.5 < found.work <= 1.01


@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("text", ["linear:96-64@8", "conv3x3:64-64@4x4"])
def test_dense_and_masked_backends_count_what_they_do(text: str, step: bool) -> None:
    layer = pair(text)
    found = device_candidates(layer, 2, step=step, device=HERE)
    times = (3 if step else 1) * 2 * layer.dense.positions
    assert found.macs == {
        "dense": times * layer.dense.weights,
        "dense-half": times * layer.dense.weights,
        "masked-dense": times * layer.wide.weights,
    }
    assert found.left_out == {} and set(found.work) <= set(BACKENDS)
    outputs: dict[str, Any] = {name: run() for name, run in found.work.items()}
    if not step:
        assert outputs["dense"].dtype is torch.float32 and outputs["masked-dense"].dtype is torch.float16
        assert outputs["dense"].shape == outputs["dense-half"].shape
        assert largest_difference(outputs["dense-half"].float(), outputs["dense"]) < 1e-2


@pytest.mark.parametrize(
    ("layer", "step", "name", "reason"),
    [
        (pair(structure="2:4"), True, "torch-2:4", "torch has no gradients for it"),
        (pair("conv3x3:64-64@4x4", "2:4"), False, "torch-2:4", "torch has it for linear layers alone"),
        (pair("linear:100-60@9", "2:4", multiple=1), False, "torch-2:4", "are not multiples of 32 and 64"),
        (pair(structure="block4x4"), False, "torch-bsr", "blocks of 16, 32, 64"),
        (pair(structure="block16x4"), False, "torch-bsr", "blocks of 16, 32, 64"),
        (pair("linear:96-96@8", "block48x48", multiple=1), False, "torch-bsr", "blocks of 16, 32, 64"),
        (pair(structure="block16x16"), True, "torch-bsr", "torch has no gradients for it"),
    ],
)
def test_why_a_layout_is_left_out(layer: LayerPair, step: bool, name: str, reason: str) -> None:
    found = device_candidates(layer, 2, step=step, device=HERE)
    assert reason in found.left_out[name] and name not in found.work


@without
@pytest.mark.parametrize(("structure", "name"), [("2:4", "torch-2:4"), ("block16x16", "torch-bsr")])
def test_what_this_torch_cannot_is_left_out_in_its_own_words(structure: str, name: str) -> None:
    found = device_candidates(pair(structure=structure), 2, step=False, device=HERE)
    assert "Error: " in found.left_out[name] and len(found.left_out[name]) <= 120
    assert set(found.work) == {"dense", "dense-half", "masked-dense"}


def test_a_layout_that_computes_something_else_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: 2 * weight)
    found = device_candidates(pair(structure="2:4"), 2, step=False, device=HERE)
    assert found.left_out["torch-2:4"].startswith("its output is not the layer's")
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", lambda weight: weight.clone())
    found = device_candidates(pair(structure="2:4"), 2, step=False, device=HERE)
    assert found.macs["torch-2:4"] == 16 * pair(structure="2:4").nnz and not found.left_out


@without
def test_a_machine_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch .* sees none here .*`device='cpu'`"):
        bench([pair()], device="cuda")
    layer = ["bench", "--layer", "linear:768-3072@512", "--device", "cuda"]
    planned, refused, threads, python = many(
        [
            [*layer, "--sparsity", "0.5", "--structures", "2:4", "--dry-run", "--format", "json"],
            layer,
            [*layer, "--threads", "all"],
            [*layer, "--python", "old"],
        ],
        tmp_path,
    )
    assert planned.code == 0 and json.loads(planned.out)["layers"][0]["wide"] == "linear:1024-4288@512"
    assert refused.code == 2 and "sees none here" in refused.message
    assert threads.code == python.code == 2 and "are for CPUs" in threads.message


def test_the_document_names_device_and_types() -> None:
    timings = tuple(Timing(name, 1e-5, 1.0, 1.0, 1.0, 9e4) for name in ("dense-half", "torch-2:4"))
    measured = (Measured(pair(structure="2:4"), "forward", 1, timings),)
    found = Bench("a GPU", 1, 3, ((1, 1e5),), measured, device="cuda", dtype="float16")
    document, table = bench_document(found), bench_table(found)
    assert (document["device"], document["dtype"]) == ("cuda", "float16")
    assert table.title == "a GPU; float16; dense peak 100000 GFLOP/s; batch 1, 3 rounds"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("structure", "name"), [("2:4", "torch-2:4"), ("block64x64", "torch-bsr")])
def test_layouts_run_on_a_gpu(structure: str, name: str) -> None:
    layer = pair("linear:256-512@64", structure)
    found = cuda_bench([layer], passes=("forward", "step"), rounds=3)
    forward, step = ({t.backend for t in one.timings} for one in found.measured)
    assert forward == {"dense", "dense-half", "masked-dense", name}, found.measured[0].left_out
    assert step == {"dense", "dense-half", "masked-dense"}
    assert found.device == "cuda" and found.peaks[0][1] > 0
