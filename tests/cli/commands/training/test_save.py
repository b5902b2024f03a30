"""`iftplan train --save` and `iftplan prune --save`: small files of the networks that they made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iftplan import nn as inn
from iftplan.nn.training.from_checkpoint import checkpoint_at, evaluated_weights
from tests.support.cli_runs import Run, many

SHORT = ["--steps", "2", "--set", "training.batch_size=256"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """A run with its file, the file again once it is finished, a pruned network, and one out of its file."""
    folder = tmp_path_factory.mktemp("save")
    words = [
        ["train", *SHORT, "--method", "rigl", "--set", "training.ema=0.9", "--out", "run", "--save", "run.safetensors"],
        ["train", "--resume", "--out", "run", "--save", "again.safetensors"],
        ["prune", "zoo:digits-cnn", "--structure", "2:4", "--save", "pruned.safetensors"],
        ["prune", "zoo:digits-cnn", "--weights", "pruned.safetensors", "--structure", "2:4", "--save", "twice.safetensors"],
        ["train", *SHORT, "--method", "dense", "--out", "dense", "--save", "dense.safetensors"],
        ["train", *SHORT, "--out", "no", "--save", "net.pt"],
        ["train", *SHORT, "--out", "no", "--save", "no/net.safetensors"],
        ["prune", "zoo:digits-cnn", "--curve", "--data", "digits", "--save", "net.safetensors"],
    ]  # fmt: skip
    return folder, many(words, folder)


def test_the_file_is_the_network_that_the_result_tells_of(runs: tuple[Path, list[Run]]) -> None:
    folder, found = runs
    assert [run.code for run in found[:2]] == [0, 0], found[1].err
    assert "written: run.safetensors" in found[0].err + found[0].out
    weights = evaluated_weights(checkpoint_at(folder / "run", print)[1])  # the moving average
    state = inn.load_sparse(folder / "run.safetensors")
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert (folder / "again.safetensors").read_bytes() == (folder / "run.safetensors").read_bytes()


def test_a_pruned_network_is_written_and_read_again(runs: tuple[Path, list[Run]]) -> None:
    folder, found = runs
    assert [run.code for run in found[2:4]] == [0, 0], found[3].err
    once, twice = (inn.load_sparse(folder / f"{name}.safetensors") for name in ("pruned", "twice"))
    assert all(torch.equal(twice[name], tensor) for name, tensor in once.items())


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (4, "--save writes the weights in the masks, and the method dense has none"),
        (5, "is no .safetensors file"),
        (6, "there is no folder no"),
        (7, "--out and --save take one pruned network"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_training(
    runs: tuple[Path, list[Run]], number: int, says: str
) -> None:
    run = runs[1][number]
    assert run.code == 2
    assert says in " ".join(run.err.split())
    assert not (runs[0] / "no").exists()
