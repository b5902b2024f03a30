"""ONNX files: what a runtime answers is what the model answers, and what cannot be written is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan import nn as inn
from iftplan.nn.export import onnx as ours


class TwoInputs(nn.Module):
    """A mask that training left, and inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = nn.Linear(8, 16), nn.Linear(4, 16)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"sum": self.x(x) + self.y(y)}


def test_a_runtime_answers_the_same(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript, of the extra onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra dev")
    torch.manual_seed(0)
    model = inn.sparsify(TwoInputs().train(), 0.5, keep_dense="none")
    next(inn.masked_weights(model)).parameter.data.add_(
        1
    )  # off its mask too: the file has the masks baked in
    batch = {"x": torch.randn(3, 8), "y": torch.randn(3, 4)}
    file = tmp_path / "model.onnx"
    inn.to_onnx(model, batch, file)
    assert model.training and len(list(inn.masked_weights(model))) == 2
    (answer,) = runtime.InferenceSession(str(file)).run(None, {name: x.numpy() for name, x in batch.items()})
    expected = inn.finalize(model)(**batch)["sum"]
    torch.testing.assert_close(torch.from_numpy(answer), expected, atol=1e-5, rtol=0)
    assert capfd.readouterr() == ("", "")


def test_a_shape_is_enough(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript, of the extra onnx")
    onnx = pytest.importorskip("onnx", reason="needs onnx, of the extra onnx")
    file = str(tmp_path / "model.onnx")
    inn.to_onnx(nn.Linear(8, 4), "2x8", file)
    (given,) = onnx.load(file).graph.input
    assert [size.dim_value for size in given.type.tensor_type.shape.dim] == [2, 8]


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_extra_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.util.find_spec
    monkeypatch.setattr(ours, "find_spec", lambda name: None if name == package else whole(name))
    with pytest.raises(ift.InputError, match=rf"with {package}, .*pip install 'iftplan\[onnx\]'"):
        inn.to_onnx(nn.Linear(8, 4), "2x8", tmp_path / "model.onnx")


class Branching(nn.Module):
    """What it computes depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "inputs", "place", "error", "says"),
    [
        (nn.Linear(8, 4), "2x7", "model.onnx", ift.MeasureError, "cannot be run on these inputs: RuntimeError: mat1"),
        (nn.Linear(8, 4), "2x8", "no/model.onnx", ift.InputError, "there is no folder"),
        (nn.Linear(8, 4, device="meta"), "2x8", "model.onnx", ift.InputError, "weight is on the meta device"),
        (Branching(), "2x8", "model.onnx", ift.InputError, "Branching cannot be exported to ONNX"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said(
    model: nn.Module, inputs: Any, place: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript, of the extra onnx")
    with pytest.raises(error, match=says):
        inn.to_onnx(model, inputs, tmp_path / place)


def test_a_network_is_one_file(tmp_path: Path) -> None:
    inn.to_onnx(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), "1x64", tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
