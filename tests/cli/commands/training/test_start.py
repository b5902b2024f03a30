"""`iftplan train --from` onto another head, another plan, some layers without masks, and from weights that no run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from iftplan.base.documents import loads, read_text
from iftplan.nn import checkpoints
from iftplan.plans.document.plan import parse_plan
from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.cli_runs import Run, many

SHORT = "--steps 4 --set training.batch_size=32 --set training.threads=1 --set training.precision=32-true --set method.interval=1"
PLAIN = "--set plan.file= --set plan.transform=none --set plan.sparsity=1/2"

NET = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 12))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Run]]:
    folder = tmp_path_factory.mktemp("starts")
    (folder / "net.py").write_text(NET)
    (folder / "ten.py").write_text(NET.replace("12", "10"))
    other = f"--set plan.file= --set plan.transform=none --set plan.sparsity=1/2 --set plan.input=1x1x8x8 --trust {SHORT}"
    torch.manual_seed(0)
    state = {"1.weight": torch.randn(32, 64), "1.bias": torch.zeros(32), "3.weight": torch.randn(32, 32)}
    state |= {"3.bias": torch.zeros(32), "5.weight": torch.randn(10, 32), "5.bias": torch.zeros(10)}
    (folder / "weights").mkdir()
    save_file(
        {f"module.{name}": value for name, value in state.items()}, folder / "weights/model.safetensors"
    )
    commands = {
        "dense": f"train --method dense {SHORT} --out dense",
        "half": f"train --from dense {PLAIN} {SHORT} --out half",
        "srste": f"train --from dense {PLAIN} --method srste --set plan.mask=2:4 {SHORT} --out srste",
        "sparser": f"train --from half {PLAIN.replace('1/2', '3/4')} {SHORT} --out sparser",
        "wide": f"train --from dense --set optimizer.lr=1e-9 {SHORT} --out wide",
        "sara": f"train --from dense {PLAIN} --method sara {SHORT} --out sara",
        "cast": f"train --from dense {PLAIN} --method cast --set plan.mask=2:4 --set optimizer.name=adams --set optimizer.lr=0.01 {SHORT} --out cast",
        "adapted": f"train --from half --set adapters.rank=2 --set adapters.layers=['3'] {SHORT} --out adapted",
        "adapted again": "train --resume --out adapted",
        "merged": f"train --from adapted {SHORT} --out merged",
        "moving": f"train --from half --method set --set adapters.rank=2 {SHORT} --out refused",
        "parts": f"train --from half --method set --set start.freeze=['3'] --set start.drop=['6'] {SHORT} --out parts",
        "resumed": "train --resume --out parts",
        "head": f"train --from weights --set plan.model=net.py:build {other} --set start.fresh=['5'] --out head",
        "no head": f"train --from weights --set plan.model=net.py:build {other} --out refused",
        "nothing": f"train --from weights --set plan.model=ten.py:build {other} --set start.fresh=['7'] --out refused",
    }
    done = many([text.split() for text in commands.values()], folder)
    return folder, dict(zip(commands, done, strict=True))


def model(folder: Path, name: str) -> dict[str, Any]:
    return dict(checkpoints.read(folder / name / "checkpoint-000000004.pt")["model"])


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def cost(folder: Path, name: str) -> TrainingCost:
    path = str(folder / name / "plan.json")
    return TrainingCost.of(parse_plan(loads(read_text(path), path), path))


def test_dense_weights_are_pruned_to_a_plan_by_their_size(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["half"].code == 0, done["half"].err
    assert "have masks chosen by magnitude" in done["half"].err
    dense, half = model(folder, "dense"), model(folder, "half")
    mask, value = half["3.weight_mask"], dense["3.weight"].abs()
    assert 2 * int(mask.sum()) == mask.numel()
    assert value[mask].min() >= value[~mask].max()
    assert result(folder, "half")["train_macs"] == 4 * 32 * cost(folder, "half").step()


def test_a_plan_of_other_widths_begins_with_the_dense_model(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["wide"].code == 0, done["wide"].err
    assert "holds the dense model, whose weights begin the plan's network" in done["wide"].err
    dense, wide = model(folder, "dense")["0.weight"], model(folder, "wide")["0.weight"]
    assert len(wide) == 2 * len(dense)
    apart = (wide.flatten(1)[:, None] - dense.flatten(1)[None]).abs().amax(2)
    assert apart.amin(1).max() < 1e-6  # every filter is one of the dense network's
    assert set(apart.argmin(1).tolist()) == set(range(len(dense)))


def test_methods_that_start_dense_begin_with_all_of_it(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["srste"].code == 0, done["srste"].err
    groups = model(folder, "srste")["3.weight_mask"].movedim(1, -1).reshape(-1, 4)
    assert (groups.sum(1) == 2).all()


def test_the_smallest_weights_of_a_dense_network_are_trained(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["sara"].code == 0, done["sara"].err
    before, after = model(folder, "dense")["3.weight"], model(folder, "sara")["3.weight"]
    moved = before != after
    assert 2 * int(moved.sum()) == moved.numel()
    assert before.abs()[moved].max() <= before.abs()[~moved].min()
    found, costs = result(folder, "sara"), cost(folder, "sara")
    assert found["train_macs"] == 4 * 32 * (2 * costs.opened + costs.forward())
    assert found["forward_macs"] == costs.opened


def test_masked_weights_shrink_in_dense_passes_and_go_at_the_end(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["cast"].code == 0, done["cast"].err
    found, costs = result(folder, "cast"), cost(folder, "cast")
    after = costs.step(dense_gradient=True)  # of the last step of four
    assert found["train_macs"] == 32 * (3 * 3 * costs.opened + after)
    assert found["forward_macs"] == costs.forward()


def test_a_sparser_plan_lies_within_the_denser_one(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["sparser"].code == 0, done["sparser"].err
    inner, outer = model(folder, "sparser")["3.weight_mask"], model(folder, "half")["3.weight_mask"]
    assert 4 * int(inner.sum()) == inner.numel()
    assert not (inner & ~outer).any()


def test_layers_are_frozen_or_dropped_and_the_ledger_follows(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["parts"].code == 0, done["parts"].err
    before, after = model(folder, "half"), model(folder, "parts")
    assert torch.equal(before["3.weight_mask"], after["3.weight_mask"])
    assert "6.weight_mask" not in after
    assert (after["6.weight"][~before["6.weight_mask"]] != 0).float().mean() > 0.9
    costs = cost(folder, "half")
    nnz = {**costs.nnz, "6": costs.capacity["6"]}
    found = result(folder, "parts")
    assert found["train_macs"] == 4 * 32 * costs.step(nnz)
    assert (found["nnz"], found["forward_macs"]) == (sum(nnz.values()), costs.forward(nnz))
    assert done["resumed"].code == 0, done["resumed"].err


def test_adapters_train_beside_frozen_weights_and_come_merged(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    for name in ("adapted", "adapted again", "merged"):
        assert done[name].code == 0, done[name].err
    before, after = model(folder, "half"), model(folder, "adapted")
    assert torch.equal(before["3.weight"], after["3.weight"])
    assert not torch.equal(before["6.weight"], after["6.weight"])
    costs = cost(folder, "half")
    adapters = 64 * (2 * 16 * 9 + 32 * 2)  # 8×8 positions
    others = costs.forward({**costs.nnz, "3": 0})
    found = result(folder, "adapted")
    assert found["train_macs"] == 4 * 32 * (2 * costs.forward() + others + 3 * adapters)
    assert found["forward_macs"] == costs.forward() + adapters
    assert not any("adapter" in name for name in model(folder, "merged"))
    assert done["moving"].code == 2
    assert "use the method static" in done["moving"].err


def test_a_head_of_another_number_of_classes(runs: tuple[Path, dict[str, Run]]) -> None:
    folder, done = runs
    assert done["head"].code == 0, done["head"].err
    assert "2 tensors begin with new values: 5.weight, 5.bias" in done["head"].err
    assert model(folder, "head")["5.weight"].shape == (12, 32)
    assert done["no head"].code == 4
    assert "name them in start.fresh: 5" in done["no head"].err
    assert done["nothing"].code == 2
    assert "fresh names '7', which no tensor" in done["nothing"].err
    assert not (folder / "refused").exists()
