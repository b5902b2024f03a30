"""The command behind the tables of docs/training/pruning.md: equal training MACs, and the arithmetic of the table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.masks import parse_mask
from iftplan.nn import Masking, apply, build, step_macs, weights_by_layer
from iftplan.nn.training.methods import algorithm_of
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.settings import MethodConfig
from tests.support.cli_runs import many
from tests.support.programs import program

program("results")
finetuning = program("finetuning")

ARMS = {arm.folder: arm for arms in finetuning.EXPERIMENTS.values() for arm in arms}
KINDS = {(arm.method, arm.mask): arm for arm in ARMS.values() if arm.method != "dense"}


def test_every_arm_has_a_folder_of_its_own() -> None:
    assert len(ARMS) == len({arm for arms in finetuning.EXPERIMENTS.values() for arm in arms})


@pytest.mark.parametrize("kind", KINDS)
def test_the_closed_form_is_the_ledger(kind: tuple[str, str]) -> None:
    """So many steps that RigL moves its masks once, with the masks of the method and gradients of zero."""
    arm, steps = KINDS[kind], 45
    plan = finetuning.plan_of(arm.sparsity, arm.mask)
    structure = parse_mask(plan.mask)
    algorithm = algorithm_of(MethodConfig(arm.method, interval=finetuning.INTERVAL), steps, structure)
    assert algorithm is not None
    model = apply(plan, build(finetuning.MODEL, device="cpu"), dense_start=algorithm.starts_dense)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    masks = Masking(model, optimizer, algorithm, structure=structure, steps=steps)
    cost, groups, spent = TrainingCost.of(plan), weights_by_layer(plan, model), 0
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(steps):
        masks.step()
        optimizer.step()
        spent += step_macs(cost, groups, masks.taken, 1)
    assert spent == finetuning.macs_of(arm, steps)


@pytest.mark.parametrize("name", ARMS)
def test_no_number_of_steps_is_nearer_to_the_budget(name: str) -> None:
    arm, budget = ARMS[name], finetuning.budget_of(1)
    steps = finetuning.length(arm, budget)
    missed = [abs(finetuning.macs_of(arm, n) - budget) for n in (steps - 1, steps, steps + 1)]
    assert missed[1] == min(missed)
    assert missed[1] < 0.002 * budget


def found(arm: str, seed: int, before: float, metric: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "before": before,
        "metric": metric,
        "ratio": 1.0,
        "forward_macs": 1234567,
        "steps": 12,
    }


def test_differences_are_to_the_control_of_the_same_seed() -> None:
    rows = [found("dense", 0, 0.5, 0.6), found("dense", 1, 0.5, 0.7)]
    rows += [found("2:4: cast", 0, 0.4, 0.62), found("2:4: cast", 1, 0.2, 0.70)]
    table = finetuning.table(rows).set_index("network")
    assert table.loc["2:4: cast", "at first"] == "30.00 ± 10.00"
    assert table.loc["2:4: cast", "against dense"] == "+1.00 ± 1.00"
    assert table.loc["dense", "against dense"] == ""
    assert table.loc["dense", "trained on"] == "65.00 ± 5.00"
    assert table.loc["dense", "forward MACs"] == "1 234 567"


def test_runs_that_there_are_are_read_and_their_ledgers_checked(tmp_path: Path) -> None:
    arm = ARMS["0.5-wanda-then-static"]
    runs = finetuning.Runs(tmp_path, None, 1)
    assert list(finetuning.results([arm], 1, runs)) == []
    macs = finetuning.BATCH * finetuning.macs_of(arm, 730)
    for folder, record in (
        (runs.tuned(arm, 0), {"metric": 0.7, "steps": 730, "train_macs": macs}),
        (runs.pruned(arm, 0), {"points": [{"metric": 0.4}]}),
    ):
        folder.mkdir()
        (folder / ("pruning.json" if "points" in record else "result.json")).write_text(json.dumps(record))
    (row,) = finetuning.results([arm], 1, runs)
    assert (row["before"], row["metric"]) == (0.4, 0.7)
    assert row["ratio"] == pytest.approx(1, abs=1e-4)
    (runs.tuned(arm, 0) / "result.json").write_text('{"metric": 0.7, "steps": 730, "train_macs": 5}')
    with pytest.raises(ValueError, match="other training MACs"):
        list(finetuning.results([arm], 1, runs))


@pytest.mark.slow
def test_every_arm_is_one_that_the_command_takes(tmp_path: Path) -> None:
    start = ["train", "--recipe", finetuning.RECIPE, "--data", "nowhere", "--dry-run", "--steps", "12"]
    for run in many([[*start, *arm.options] for arm in ARMS.values()], tmp_path):
        assert run.code == 0, run.err
        assert re.search(r"forward MACs a sample +[\d ]+", run.out)
