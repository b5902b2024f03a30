"""Runs that begin with another's weights: frozen, moving or dropped masks, what they cost, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.cli_runs import Run, many

pytestmark = pytest.mark.slow

SHORT = "--steps 3 --set training.batch_size=32 --set method.interval=1 --set training.threads=1 --set training.precision=32-true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beginnings")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    commands = {
        "first": f"train --method rigl {SHORT} --out first",
        "frozen": f"train --from first {SHORT} --out frozen",
        "moving": f"train --from first/checkpoint-000000003.pt --method set {SHORT} --out moving",
        "densified": f"train --from first --method densified {SHORT} --out densified",
        "resumed": f"train --resume {SHORT.replace('--steps 3', '')} --out densified",
        "gradual": f"train --from first --method gradual {SHORT} --out refused",
        "nowhere": f"train --from nowhere {SHORT} --out refused",
        "other plan": f"train --from first --set plan.file= --set plan.sparsity=1/2 {SHORT} --out refused",
    }
    done = many([text.split() for text in commands.values()], folder)
    return dict(zip(commands, done, strict=True))


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def model(folder: Path, name: str) -> dict[str, torch.Tensor]:
    found = torch.load(folder / name / "checkpoint-000000003.pt", weights_only=True)["state"]["model"]
    return dict(found)


def masks(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if name.endswith("_mask")}


def test_frozen_masks_stay_while_weights_train(runs: dict[str, Run], folder: Path) -> None:
    assert runs["frozen"].code == 0, runs["frozen"].err
    before, after = model(folder, "first"), model(folder, "frozen")
    assert masks(before)
    assert all(torch.equal(mask, after[name]) for name, mask in masks(before).items())
    moved = [
        name
        for name in before
        if before[name].dtype.is_floating_point and not torch.equal(before[name], after[name])
    ]
    assert any(name.replace("weight", "weight_mask") in masks(before) for name in moved)
    assert result(folder, "frozen")["method"] == "static"


def test_masks_move_on_from_where_they_were(runs: dict[str, Run], folder: Path) -> None:
    assert runs["moving"].code == 0, runs["moving"].err
    before, after = masks(model(folder, "first")), masks(model(folder, "moving"))
    for name, mask in before.items():
        assert int(mask.sum()) == int(after[name].sum())
        kept = int((mask & after[name]).sum()) / int(mask.sum())
        assert 0.3 < kept < 1  # another draw would share a quarter


def test_densified_weights_all_train_and_are_all_charged(runs: dict[str, Run], folder: Path) -> None:
    from iftplan.base.documents import loads, read_text
    from iftplan.plans.document.plan import parse_plan

    assert runs["densified"].code == 0, runs["densified"].err
    path = str(folder / "first" / "plan.json")
    cost = TrainingCost.of(parse_plan(loads(read_text(path), path), path))
    found, state = result(folder, "densified"), model(folder, "densified")
    assert found["train_macs"] == 3 * 32 * 3 * cost.opened > 3 * 32 * cost.dense_step
    assert (found["method"], found["transform"], found["forward_macs"]) == ("densified", "wide", cost.opened)
    assert not masks(state)
    for name, mask in masks(model(folder, "first")).items():
        assert (state[name.removesuffix("_mask")][~mask] != 0).float().mean() > 0.5
    assert runs["resumed"].code == 0, runs["resumed"].err


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("gradual", 2, "starts dense and would drop the masks"),
        ("nowhere", 2, "neither a checkpoint nor a run directory"),
        ("other plan", 4, "was trained for another plan"),
    ],
)
def test_what_cannot_be_begun_with_is_refused(
    runs: dict[str, Run], folder: Path, name: str, code: int, says: str
) -> None:
    assert runs[name].code == code, runs[name].err
    assert says in runs[name].message
    assert not (folder / "refused").exists()
