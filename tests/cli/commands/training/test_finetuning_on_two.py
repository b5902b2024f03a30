"""Runs on two processes that begin with trained weights, learn from a teacher, or are averaged: as on one process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.nn import checkpoints
from tests.support.cli_runs import Run, document, many
from tests.support.processes.launches import environment

pytestmark = pytest.mark.slow

STEPS = 6
SHORT = f"--steps {STEPS} --set training.batch_size=32 --set training.threads=1 --set training.precision=32-true --set training.checkpoint_interval=4"
PLAIN = "--set plan.file= --set plan.transform=none --set plan.sparsity=1/2"
HALF = f"--set plan.mask=2:4 {PLAIN}"
LEARN = "--set distillation.teacher=dense --set distillation.features=0.5"
BEGUN = {"dense": "--method dense", "half": f"--from dense {PLAIN}"}
RUNS = {
    "student": f"--from half {LEARN}",
    "adapted": "--from half --set adapters.rank=2",
    "sara": f"--from dense {PLAIN} --method sara",
    "srste": f"--from dense {HALF} --method srste",
    "cast": f"--from dense {HALF} --method cast --set optimizer.name=adams --set optimizer.lr=0.01",
    "structure-decay": f"--from dense {HALF} --method structure-decay",
    "again": "--from half --seed 1",
}
STRATEGIES = {name: ("ddp",) if name == "adapted" else ("ddp", "fsdp") for name in RUNS}
PAIRS = [(name, strategy) for name, strategies in STRATEGIES.items() for strategy in strategies]
RESUMED = ("student", "adapted", "cast")

SCRIPT = """
import json, sys
from iftplan.cli.main import main

for command in json.load(open("commands.json")):
    try:
        main(command.split())
    except SystemExit as ended:
        assert not ended.code, (command, ended.code)
"""


def on_two(folder: Path, commands: list[str]) -> None:
    """Run commands one after the other in the same two processes."""
    (folder / "commands.json").write_text(json.dumps(commands))
    (folder / "several.py").write_text(SCRIPT)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "several.py")
    done = subprocess.run(
        [sys.executable, *launch],
        cwd=folder,
        capture_output=True,
        timeout=600,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run on one process, and on two by each strategy; of some a copy that goes on from a checkpoint."""
    folder = tmp_path_factory.mktemp("two")
    alone = {**BEGUN, **RUNS}
    done = many([f"train {text} {SHORT} --out {name}".split() for name, text in alone.items()], folder)
    assert [run.code for run in done] == [0] * len(alone), [run.err for run in done]
    on_two(
        folder,
        [
            f"train {RUNS[name]} {SHORT} --set training.strategy={strategy} --out {name}-{strategy}"
            for name, strategy in PAIRS
        ],
    )
    for name in RESUMED:
        for strategy in STRATEGIES[name]:
            again = folder / f"{name}-{strategy}-again"
            shutil.copytree(folder / f"{name}-{strategy}", again)
            (again / "result.json").unlink()
            (last,) = again.glob(f"checkpoint-*{STEPS}*")
            shutil.rmtree(last) if last.is_dir() else last.unlink()
    on_two(folder, [f"train --resume --out {name}-{s}-again" for name in RESUMED for s in STRATEGIES[name]])
    return folder


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Whole weights of the last checkpoint, a file or a folder."""
    path = sorted((folder / name).glob("checkpoint-*"))[-1]
    return dict(checkpoints.read(checkpoints.gather(path) if path.is_dir() else path)["model"])


@pytest.mark.parametrize(("name", "strategy"), PAIRS)
def test_two_processes_do_what_one_does(folder: Path, name: str, strategy: str) -> None:
    """Batch norms see halves of a batch, so weights are near and not equal."""
    one, two = (document(folder / run / "result.json") for run in (name, f"{name}-{strategy}"))
    for key in ("train_macs", "dense_train_macs", "forward_macs", "nnz", "mask_updates"):
        assert one[key] == two[key], key
    assert two["loss"] == pytest.approx(one["loss"], rel=0.2)


@pytest.mark.parametrize(
    ("name", "strategy"), [(name, strategy) for name in RESUMED for strategy in STRATEGIES[name]]
)
def test_two_processes_go_on_to_the_same_bit(folder: Path, name: str, strategy: str) -> None:
    whole, again = folder / f"{name}-{strategy}", folder / f"{name}-{strategy}-again"
    assert document(again / "result.json") == document(whole / "result.json")
    assert (again / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_runs_of_two_processes_are_averaged(folder: Path, strategy: str) -> None:
    """With one of a single process that shares their masks."""
    found: list[Run] = many([["soup", f"again-{strategy}", "again", "--out", f"soup-{strategy}"]], folder)
    assert found[0].code == 0, found[0].err
    soup, parts = (
        weights(folder, f"soup-{strategy}"),
        [weights(folder, name) for name in (f"again-{strategy}", "again")],
    )
    name = "3.weight"
    assert torch.equal(soup[f"{name}_mask"], parts[0][f"{name}_mask"])
    assert torch.allclose(soup[name], (parts[0][name] + parts[1][name]) / 2, atol=1e-6)
    result: dict[str, Any] = document(folder / f"soup-{strategy}" / "result.json")
    assert result["nnz"] == document(folder / "again" / "result.json")["nnz"]
