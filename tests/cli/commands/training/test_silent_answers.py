"""Combinations of settings that gave a wrong answer without a word, each with the right one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.nn.training.from_checkpoint import checkpoint_at, evaluated_weights
from tests.support.cli_runs import Run, many

EVALUATED = ("--set", "training.eval_interval=3")
HALF = ("--set", "plan.file=", "--set", "plan.transform=none", "--set", "plan.sparsity=1/2")
WAITING = (
    "--set", "data.validation_fraction=0.2", "--set", "training.patience=1", "--set", "training.eval_interval=2",
    "--set", "optimizer.lr=2", "--set", "schedule.name=constant", "--steps", "40",
)  # fmt: skip
SPECTRA = ("--resume", "--out", "spectra", "--set", "training.spectra=none")
COMMANDS: dict[str, tuple[str, ...]] = {
    "dense": ("train", "--method", "dense", "--steps", "4", "--out", "dense"),
    "half": ("train", "--from", "dense", *HALF, "--steps", "4", "--out", "half"),
    "sara": ("train", "--from", "dense", "--method", "sara", *HALF, *WAITING, "--out", "sara"),
    "drop": (
        "train", "--from", "half", "--method", "set", "--set", "method.interval=1", "--set", 'start.drop=["6"]',
        *WAITING, "--out", "drop",
    ),
    "taught": ("train", "--set", "distillation.teacher=drop", "--steps", "2", "--out", "taught"),
    "adapted": ("train", "--from", "half", "--set", "adapters.rank=2", "--steps", "3", "--out", "adapted",
                "--save", "adapted.safetensors"),
    "taught by adapters": ("train", "--set", "distillation.teacher=adapted", "--steps", "2", "--out", "taught-2"),
    "average": ("train", "--method", "dense", "--set", "training.ema=0.9", "--set", "training.precision=32-true",
                "--set", "optimizer.lr=0.2", "--steps", "12", "--out", "average"),
    "pruned": ("prune", "average", "--curve", "--format", "json", "-o", "curve.json"),
    "again": ("train", "--from", "average", "--method", "dense", "--set", "optimizer.lr=1e-12", "--set",
              "optimizer.weight_decay=0", "--steps", "1", "--out", "again"),
    "grown": ("train", "--method", "dense", "--set", "growth.how=replicas", "--set", "growth.times=2", "--set",
              "growth.budget=0.76", "--set", "data.validation_fraction=0.2", "--set", "training.eval_interval=4",
              "--set", "schedule.name=constant", "--set", "optimizer.lr=1", "--steps", "20", "--out", "grown"),
    "from grown": ("train", "--from", "grown", "--method", "dense", "--steps", "1", "--out", "after"),
    "spectra": ("train", "--set", "training.spectra=evaluation", *EVALUATED, "--steps", "6", "--out", "spectra"),
    "without": ("train", *SPECTRA),
    "linear": ("train", "--set", "plan.transform=parallel", "--seed", "0", "--steps", "3", "--out", "inside/yes"),
    "norm": ("train", "--set", "plan.transform=parallel", "--set", "plan.nonlinear=norm", "--seed", "1", "--steps", "3",
             "--out", "inside/norm"),
    "inside": ("pareto", "inside", "--format", "json"),
    "one": ("plan", "zoo:digits-cnn", "-o", "one.json"),
    "less": ("plan", "zoo:digits-cnn", "--budget", "0.5x", "-o", "less.json"),
    "plans": ("pareto", "one.json", "less.json", "--y", "log2_masks", "--format", "json"),
    "sweep": ("sweep", "zoo:digits-cnn", "--transforms", "wide", "--sparsities", "0.5", "-o", "full.csv"),
    "budget": ("sweep", "zoo:digits-cnn", "--transforms", "wide", "--sparsities", "0.5", "--budget", "0.5x", "-o", "half.csv"),
    "tables": ("pareto", "full.csv", "half.csv", "--y", "log2_masks", "--format", "json"),
    "structure": ("sweep", "zoo:digits-cnn", "--train", "--config", "nm.toml", "--transforms", "none", "--sparsities",
                  "0.5", "--steps", "2", "--out", "swept", "--format", "json"),
    "searched": ("sweep", "zoo:digits-cnn", "--train", "--search", "tpe", "--seeds", "0,1", "--steps", "2"),
    "varied": ("sweep", "zoo:digits-cnn", "--train", "--transforms", "wide", "--sparsities", "0.75", "--steps", "2",
               "--set", "training.precision=32-true", "--vary", "training.execution=dense,compact", "--out", "varied"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("silent")


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Run]:
    (folder / "nm.toml").write_text('[plan]\nmask = "2:4"\n[method]\nname = "srste"\n', encoding="utf-8")
    return dict(zip(COMMANDS, many(list(COMMANDS.values()), folder), strict=True))


def result(folder: Path, name: str) -> Any:
    return json.loads((folder / name / "result.json").read_text(encoding="utf-8"))


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name / "metrics.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("searched", "varied")])
def test_it_works(runs: dict[str, Run], name: str) -> None:
    assert runs[name].code == 0, runs[name].err


@pytest.mark.parametrize("name", ["sara", "drop"])
def test_patience_ends_runs_whose_masks_never_thin_the_network(
    runs: dict[str, Run], folder: Path, name: str
) -> None:
    assert result(folder, name)["steps"] < 40
    assert "1 evaluation without a better loss" in runs[name].err


def test_a_network_that_a_run_ends_with_is_the_one_that_its_result_names(
    runs: dict[str, Run], folder: Path
) -> None:
    found, evaluations = result(folder, "grown"), rows(folder, "grown")
    best = next(row for row in evaluations if int(row["step"]) == found["best_step"])
    assert int(best["forward_macs"]) == found["forward_macs"]
    assert len({row["forward_macs"] for row in evaluations}) > 1, "it grew"


def test_weights_that_a_run_is_judged_by_are_those_that_others_begin_with(
    runs: dict[str, Run], folder: Path
) -> None:
    judged = result(folder, "average")["metric"]
    curve = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    assert curve["metric"] == pytest.approx(judged)
    average, again = (checkpoint_at(folder / name, print)[1] for name in ("average", "again"))
    begun, ended = evaluated_weights(average), again["model"]
    assert all(
        torch.allclose(ended[name], begun[name], atol=1e-6) for name in begun if name.endswith("weight")
    )
    assert not torch.allclose(average["model"]["0.weight"], begun["0.weight"], atol=1e-3)


def test_a_run_may_stop_measuring_spectra(runs: dict[str, Run], folder: Path) -> None:
    assert all(row["delta_r"] for row in rows(folder, "spectra"))


@pytest.mark.parametrize("name", ["inside", "plans", "tables"])
def test_different_things_are_no_seeds_of_each_other(runs: dict[str, Run], name: str) -> None:
    assert len(json.loads(runs[name].out)["points"]) == 2


def test_a_sweep_takes_the_structure_of_its_configuration(runs: dict[str, Run]) -> None:
    assert json.loads(runs["structure"].out)["rows"][0]["structure"] == "2:4"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("searched", "--search trains every trial with one seed, and --seeds gives 0,1."),
        ("varied", "--vary makes no other runs with training.execution=compact"),
    ],
)
def test_what_would_be_dropped_is_refused(runs: dict[str, Run], name: str, says: str) -> None:
    assert says in runs[name].err
    assert runs[name].code == 2
