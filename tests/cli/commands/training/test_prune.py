"""`iftplan prune`: from a dense run over a pruned network to a run that continues from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from iftplan.nn import build, checkpoints
from tests.support.cli_runs import Run, iftplan, many

SHORT = ["--set", "training.batch_size=256", "--set", "optimizer.lr=0.2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """A dense run, a pruned network, a run from it, and the curves of the dense network."""
    folder = tmp_path_factory.mktemp("prune")
    words: Sequence[Sequence[str]] = [
        ["train", "--method", "dense", "--epochs", "5", *SHORT, "--out", "dense"],
        [
            "prune",
            "dense",
            "--method",
            "wanda",
            "--budget",
            "0.5x",
            "--distribution",
            "erk",
            "--out",
            "pruned",
        ],
        ["train", "--from", "pruned", "--steps", "2", *SHORT, "--out", "tuned"],
        [
            *["prune", "dense", "--curve", "--method", "magnitude,sparsegpt", "--sparsity", "0.9,0.1,0.5"],
            *["--samples", "64", "--plot", "curve.png", "-o", "curve.json"],
        ],
        ["prune", "tuned", "--method", "sparsegpt", "--structure", "1:4", "--out", "again"],
        ["audit", "again/plan.json"],
        ["train", "--steps", "1", *SHORT, "--out", "wide"],
        ["prune", "wide"],
    ]
    return folder, many(words, folder)


def test_all_of_it_runs(runs: tuple[Path, list[Run]]) -> None:
    folder, done = runs
    assert [run.code for run in done] == [0] * (len(done) - 1) + [2], [run.err for run in done]
    assert "PASSED" in done[1].err
    assert {path.name for path in (folder / "pruned").iterdir()} == {
        "checkpoint-000000000.pt", "plan.json", "pruning.json",
    }  # fmt: skip


def test_a_budget_is_met_to_the_last_mac(runs: tuple[Path, list[Run]]) -> None:
    document = json.loads((runs[0] / "pruned" / "pruning.json").read_text())
    (point,) = document["points"]
    assert 2 * point["macs"] <= document["dense_macs"] < 2 * (point["macs"] + 64)  # a weight costs up to 64


def test_a_run_continues_with_the_masks(runs: tuple[Path, list[Run]]) -> None:
    folder, _ = runs
    before = checkpoints.read(folder / "pruned" / "checkpoint-000000000.pt")["model"]
    after = checkpoints.read(folder / "tuned" / "checkpoint-000000002.pt")["model"]
    masks = [name for name in before if name.endswith("_mask")]
    assert masks
    assert all(torch.equal(before[name], after[name]) for name in masks)
    result = json.loads((folder / "tuned" / "result.json").read_text())
    document = json.loads((folder / "pruned" / "pruning.json").read_text())
    assert result["nnz"] == document["points"][0]["nnz"]
    assert result["forward_macs"] == document["points"][0]["macs"]


def test_the_curve_falls_later_where_weights_make_up(runs: tuple[Path, list[Run]]) -> None:
    folder, _ = runs
    document = json.loads((folder / "curve.json").read_text())
    metrics = {(p["method"], round(p["sparsity"], 2)): p["metric"] for p in document["points"]}
    assert len(metrics) == 6
    assert metrics["magnitude", 0.9] < document["metric"] - 0.2
    assert metrics["sparsegpt", 0.5] > metrics["magnitude", 0.5]
    with Image.open(folder / "curve.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**20) or ()) > 50


def test_zeros_of_a_sparse_run_stay_zero(runs: tuple[Path, list[Run]]) -> None:
    folder, _ = runs
    tuned = checkpoints.read(folder / "tuned" / "checkpoint-000000002.pt")["model"]
    again = checkpoints.read(folder / "again" / "checkpoint-000000000.pt")["model"]
    assert int(again["6.weight_mask"].sum()) * 4 == again["6.weight_mask"].numel()
    assert torch.equal(tuned["0.weight"], again["0.weight"])


NET = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
"""


def test_weights_come_from_a_file_or_from_the_factory(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    network = build(f"{tmp_path / 'net.py'}:build", device="cpu")
    nn.init.constant_(network.get_parameter("3.weight"), 0.5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pt")
    model = ["prune", "net.py:build", "--input", "1x1x8x8"]
    done = iftplan(*model, "--weights", "w.pt", "--out", "loaded", cwd=tmp_path)
    assert done.code == 0, done.err
    kept = checkpoints.read(tmp_path / "loaded" / "checkpoint-000000000.pt")["model"]["3.weight"]
    assert set(kept.unique().tolist()) == {0.0, 0.5}
    assert done.out.split("magnitude")[1].split()[:2] == ["0.7500", "256"]
    others = [
        ([*model], 0, ""),
        ([*model, "--out", "loaded"], 2, "is not an empty directory"),
        ([*model, "--weights", "net.py"], 2, "cannot be read as a state dict"),
        (["prune", "zoo:digits-cnn", "--weights", "w.pt"], 2, "is not of zoo:digits-cnn"),
        ([*model, "--method", "wanda"], 2, "--method wanda needs data"),
        ([*model, "--method", "wands"], 2, "Methods are magnitude, wanda, sparsegpt"),
        ([*model, "--method", "wanda,magnitude"], 2, "compare them with --curve"),
        ([*model, "--curve"], 2, "--curve needs data"),
        ([*model, "--plot", "x.png"], 2, "Add --curve"),
        ([*model, "--sparsity", "0.5,0.6"], 2, "names 2 sparsities"),
        ([*model, "--curve", "--out", "x"], 2, "--out and --save take one pruned network"),
        (["prune", str(tmp_path)], 2, "is no run"),
    ]
    for (words, code, text), run in zip(
        others, many([words for words, _, _ in others], tmp_path), strict=True
    ):
        assert run.code == code, (words, run.err)
        assert text in run.err, (words, run.err)


def test_a_run_of_other_widths_is_refused(runs: tuple[Path, list[Run]]) -> None:
    assert "Prune a run of the method dense" in runs[1][-1].err
