"""Averages of runs that share their masks: weights, statistics and ledger by hand, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.base.documents import dumps, loads, read_text, with_digest
from iftplan.plans.document.plan import parse_plan
from iftplan.runs.costs.training_cost import TrainingCost
from tests.support.cli_runs import Run, iftplan, many

pytestmark = pytest.mark.slow

SHORT = "--epochs 3 --set training.threads=1 --set training.precision=32-true"
FOUR = [f"again{seed}" for seed in (1, 2, 3, 4)]
KEPT = "--set data.validation_fraction=0.2 --set training.batch_size=64"
TRAIN = {
    "first": f"train --method rigl {SHORT} --out first",
    **{name: f"train --from first --seed {name[-1]} {SHORT} --out {name}" for name in FOUR},
    "moved": f"train --from first --method set --set method.interval=2 {SHORT} --out moved",
    "v1": f"train --from first --seed 1 {SHORT} {KEPT} --out v1",
    "v2": f"train --from first --seed 2 {SHORT} {KEPT} --out v2",
    "bad": f"train --from first --seed 3 {SHORT} {KEPT} --set optimizer.lr=2.0 --steps 3 --out bad",
    "dense plan": f"train --set plan.sparsity=1/2 {SHORT} --steps 1 --out half",
    "begun": f"train --from first {SHORT} --out begun",
}
SOUPS = {
    "soup": f"soup {' '.join(FOUR)} --out soup",
    "next": f"train --from soup {SHORT} --steps 1 --out next",
    "audit": "audit soup/plan.json",
    "pareto": f"pareto {' '.join(FOUR)} soup --format json",
    "resume": "train --resume --out soup",
    "greedy": "soup bad v1 v2 --greedy --out greedy",
    "masks": "soup again1 moved --out refused",
    "plan": "soup again1 half --out refused",
    "data": "soup again1 v1 --out refused",
    "begun": "soup again1 begun --out refused",
    "soup of soups": "soup again1 soup --out refused",
    "one": "soup again1 --out refused",
    "twice": "soup again1 ./again1 --out refused",
    "nowhere": "soup again1 nowhere --out refused",
    "taken": "soup again1 again2 --out again3",
    "no validation": "soup again1 again2 --greedy --out refused",
    "no out": "soup again1 again2",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soups")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    trained = many([text.split() for text in TRAIN.values()], folder)
    assert [run.code for run in trained] == [0] * len(trained), [run.err for run in trained]
    (folder / "begun" / "result.json").unlink()
    return dict(zip(SOUPS, many([text.split() for text in SOUPS.values()], folder), strict=True))


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def model(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = sorted((folder / name).glob("checkpoint-*.pt"))[-1]
    return dict(torch.load(path, weights_only=True)["state"]["model"])


def test_weights_are_the_mean_under_the_masks_of_all(runs: dict[str, Run], folder: Path) -> None:
    assert runs["soup"].code == 0, runs["soup"].err
    parts, mean = [model(folder, name) for name in FOUR], model(folder, "soup")
    for name, value in mean.items():
        if name.endswith("_mask"):
            assert torch.equal(value, parts[0][name])
            assert not mean[name.removesuffix("_mask")][~value].any()
        elif "running" not in name and value.is_floating_point():
            expected = torch.stack([part[name].double() for part in parts]).mean(0)
            assert torch.allclose(value.double(), expected, rtol=1e-6, atol=1e-9)
    assert result(folder, "soup")["nnz"] == result(folder, "again1")["nnz"]


def test_batch_statistics_are_those_of_the_average(runs: dict[str, Run], folder: Path) -> None:
    """Of the first norm by hand: the mean over batches of its convolution's outputs."""
    from iftplan.nn.training.data.batches import TrainingBatches
    from iftplan.nn.training.data.opening import open_data
    from iftplan.runs.document import parse_run

    path = folder / "soup" / "run.json"
    config = parse_run(json.loads(path.read_text())["config"], str(path))
    task, size = open_data(config.data, print), config.training.batch_size
    state, means = model(folder, "soup"), []
    for step in range(len(task.train) // size):
        inputs, _ = TrainingBatches(task.train, config.seed, size, len(task.train) // size, 0, 1)(step)
        outputs = torch.nn.functional.conv2d(
            task.normalised(inputs), state["0.weight"], state.get("0.bias"), padding=1
        )
        means.append(outputs.mean((0, 2, 3)))
    assert torch.allclose(state["1.running_mean"], torch.stack(means).mean(0), atol=1e-5)
    averaged = torch.stack([model(folder, name)["1.running_mean"] for name in FOUR]).mean(0)
    assert not torch.allclose(state["1.running_mean"], averaged, atol=1e-5)


def test_the_ledger_is_that_of_all_runs_and_of_the_statistics(runs: dict[str, Run], folder: Path) -> None:
    path = str(folder / "first" / "plan.json")
    cost = TrainingCost.of(parse_plan(loads(read_text(path), path), path))
    found, steps, size = result(folder, "soup"), 33, 128
    assert found["train_macs"] == 4 * steps * size * 3 * cost.forward() + 11 * size * cost.forward()
    assert found["dense_train_macs"] == 4 * steps * size * cost.dense_step
    assert (found["steps"], found["samples"]) == (4 * steps, 4 * steps * size)
    assert found["soup"]["norm_samples"] == 11 * size


def test_four_runs_beat_their_mean(runs: dict[str, Run], folder: Path) -> None:
    found = result(folder, "soup")
    alone = [result(folder, name)["metric"] for name in FOUR]
    assert found["soup"]["mean_metric"] == pytest.approx(sum(alone) / 4)
    assert found["metric"] > sum(alone) / 4
    assert f"{found['metric']:.4f}" in runs["soup"].out


def test_its_directory_is_that_of_a_run(runs: dict[str, Run], folder: Path) -> None:
    assert runs["next"].code == runs["audit"].code == runs["pareto"].code == 0, runs["next"].err
    before, after = model(folder, "soup"), model(folder, "next")
    assert all(torch.equal(mask, after[name]) for name, mask in before.items() if name.endswith("_mask"))
    points = json.loads(runs["pareto"].out)["points"]
    assert sorted(point["seeds"] for point in points) == [1, 4]
    assert runs["resume"].code == 2
    assert "--from soup" in runs["resume"].err


def test_a_greedy_soup_leaves_out_what_does_harm(runs: dict[str, Run], folder: Path) -> None:
    assert runs["greedy"].code == 0, runs["greedy"].err
    found = result(folder, "greedy")
    used = {run["run"]: run["used"] for run in found["soup"]["runs"]}
    assert not used["bad"]
    assert used["v1"] or used["v2"]
    assert "bad is left out" in runs["greedy"].err
    best = max(result(folder, name)["validation_metric"] for name in ("bad", "v1", "v2"))
    assert found["validation_metric"] >= best
    alone = sum(result(folder, name)["train_macs"] for name in ("bad", "v1", "v2"))
    assert found["train_macs"] == alone + found["soup"]["norm_macs"]


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("masks", 2, "moved and again1 do not share their masks"),
        ("plan", 4, "half was trained for another plan"),
        ("data", 2, "v1 was trained on other data"),
        ("begun", 2, "begun has not ended"),
        ("soup of soups", 2, "soup is a soup itself"),
        ("one", 2, "name two or more"),
        ("twice", 2, "each once"),
        ("nowhere", 2, "nowhere is no run"),
        ("taken", 2, "again3 already contains a run"),
        ("no validation", 2, "again1 kept none aside"),
        ("no out", 2, "--out DIR"),
    ],
)
def test_what_cannot_be_averaged_is_refused_by_name(
    runs: dict[str, Run], folder: Path, name: str, code: int, says: str
) -> None:
    assert runs[name].code == code, runs[name].err
    assert says in runs[name].err
    assert not (folder / "refused" / "result.json").exists()


def test_the_distance_of_masks_is_in_the_message(runs: dict[str, Run], folder: Path) -> None:
    first, moved = model(folder, "again1"), model(folder, "moved")
    masks = [name for name in first if name.endswith("_mask")]
    gone = sum(int((first[name] & ~moved[name]).sum()) for name in masks)
    kept = sum(int(first[name].sum()) for name in masks)
    assert f"{gone} of the {kept} weights" in runs["masks"].err
    assert f"would keep {kept + gone} weights" in runs["masks"].err  # as many are new as are gone


def test_diff_of_two_runs_says_which_weights_moved(runs: dict[str, Run], folder: Path) -> None:
    words = ["diff", "again1", "again2/checkpoint-000000033.pt", "--threshold", "0,1e-3"]
    table, data, wrong, mixed, costs = many(
        [words, [*words, "--format", "json"], [*words[:3], "--threshold", "x"], ["diff", "again1", "zoo:digits-cnn"], ["diff", "zoo:digits-cnn", "zoo:digits-cnn", "--threshold", "0"]],
        folder,
    )  # fmt: skip
    found = json.loads(data.out)
    assert (table.code, data.code) == (0, 0), table.err
    first, second = model(folder, "again1"), model(folder, "again2")
    parameters = [x for x, v in first.items() if v.is_floating_point() and "running" not in x]
    kept = [first.get(f"{x}_mask", torch.ones_like(first[x], dtype=torch.bool)) for x in parameters]
    for row, limit in zip(found["total"], (0.0, 1e-3), strict=True):
        moved = sum(
            int(((first[x] - second[x]).abs()[mask] > limit).sum())
            for x, mask in zip(parameters, kept, strict=True)
        )
        assert (row["weights"], row["moved"]) == (sum(int(mask.sum()) for mask in kept), moved)
    assert f"update sparsity {found['total'][1]['update_sparsity']:.4f}" in table.out
    assert [run.code for run in (wrong, mixed, costs)] == [2, 2, 2]
    assert "no size of a change" in wrong.err
    assert "zoo:digits-cnn does not" in mixed.err
    assert "--threshold is for the weights" in costs.err


def test_a_soup_is_the_same_in_a_process_of_its_own(runs: dict[str, Run], folder: Path) -> None:
    done = iftplan("soup", *FOUR, "--out", "again", cwd=folder, env={"OMP_NUM_THREADS": "1"})
    assert done.code == 0, done.err
    assert result(folder, "again")["weights_digest"] == result(folder, "soup")["weights_digest"]


def test_a_result_without_its_cost_is_refused(runs: dict[str, Run], folder: Path) -> None:
    shutil.copytree(folder / "again1", folder / "old")
    old = {key: value for key, value in result(folder, "old").items() if key not in ("samples", "digest")}
    (folder / "old" / "result.json").write_text(dumps(with_digest(old)))
    done = iftplan("soup", "again2", "old", "--out", "refused", cwd=folder)
    assert (done.code, "'samples'" in done.err) == (2, True), done.err
