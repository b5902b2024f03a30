"""`iftplan train --execution compact`: the run is the masked-dense one within rounding, and each continues the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.nn.training.from_checkpoint import checkpoint_at
from tests.support.cli_runs import Run, many

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

RIGL = [
    *["train", "--method", "rigl", "--steps", "12", "--set", "training.batch_size=64"],
    *[
        "--set",
        "method.interval=3",
        "--set",
        "training.eval_interval=6",
        "--set",
        "training.checkpoint_interval=6",
    ],
    *["--set", "training.precision=32-true"],
]
EXECUTIONS = ("dense", "sparse", "compact")


PAIRS = [("dense", "compact"), ("compact", "dense"), ("compact", "compact")]
REFUSED = {
    "training.ema=0.9": "cannot go with training.ema, which averages dense weights",
    "recycling.measure=true": "cannot go with recycling",
    "training.precision=bf16-mixed": "training.execution=compact only has kernels for float32",
    "method.name=ste": "training.execution=compact only computes with the weights in the masks, but ste",
    "training.strategy=fsdp": "training.execution=compact reads whole weights, which fsdp distributes",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """One run in each execution, and refusals; then runs that were cut off at step 6, continued."""
    folder = tmp_path_factory.mktemp("compact")
    words = [[*RIGL, "--execution", how, "--out", how] for how in EXECUTIONS]
    words += [[*RIGL, "--execution", "compact", "--set", setting, "--out", "no"] for setting in REFUSED]
    done = many(words, folder)
    for first, then in PAIRS:
        cut = folder / f"{first}-{then}"
        cut.mkdir()
        for name in ("run.json", "plan.json", "checkpoint-000000006.pt"):
            (cut / name).write_bytes((folder / first / name).read_bytes())
    words = [["train", "--resume", "--out", f"{first}-{then}", "--execution", then] for first, then in PAIRS]
    return folder, [*done, *many(words, folder)]


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def test_the_result_is_the_masked_dense_one(runs: tuple[Path, list[Run]]) -> None:
    folder, done = runs
    assert [run.code for run in done[:3]] == [0, 0, 0], done[2].err
    dense, sparse, compact = (result(folder, name) for name in EXECUTIONS)
    assert compact["mask_updates"] == dense["mask_updates"] >= 2
    for key in (
        "train_macs",
        "dense_train_macs",
        "forward_macs",
        "nnz",
        "itop",
        "density",
        "mask_bytes",
        "index_bits",
    ):
        assert compact[key] == dense[key], key
    assert compact["run_digest"] == dense["run_digest"] != sparse["run_digest"]
    assert compact["weights_digest"] == sparse["weights_digest"]  # sums in one order
    assert compact["test_loss"] == pytest.approx(dense["test_loss"], rel=1e-3)


def test_it_holds_kept_values_alone_between_updates(runs: tuple[Path, list[Run]]) -> None:
    dense, _, compact = (result(runs[0], name) for name in EXECUTIONS)
    for key in ("parameter_bytes", "gradient_bytes", "optimizer_bytes"):
        assert compact[key] < 0.5 * dense[key], key  # at three quarters of zeros, and padding


def test_checkpoints_are_those_of_the_masked_dense_execution(runs: tuple[Path, list[Run]]) -> None:
    states = {name: checkpoint_at(runs[0] / name, print)[1] for name in ("dense", "compact")}
    one, other = states["dense"], states["compact"]
    assert one["model"].keys() == other["model"].keys()
    assert one["optimizer"]["state"].keys() == other["optimizer"]["state"].keys()
    for name, slots in one["optimizer"]["state"].items():
        assert {k: getattr(v, "shape", v) for k, v in slots.items()}.keys() == other["optimizer"]["state"][
            name
        ].keys()
        assert slots["momentum_buffer"].shape == other["optimizer"]["state"][name]["momentum_buffer"].shape


@pytest.mark.parametrize(("first", "then"), PAIRS)
def test_each_execution_continues_the_other(runs: tuple[Path, list[Run]], first: str, then: str) -> None:
    folder, done = runs
    resumed = done[3 + len(REFUSED) + PAIRS.index((first, then))]
    assert resumed.code == 0, resumed.err
    name = f"{first}-{then}"
    found, expected = result(folder, name), result(folder, then)
    assert found["train_macs"] == expected["train_macs"]
    if first == then:
        assert found == expected  # to the bit
    state, other = (checkpoint_at(folder / path, print)[1]["model"] for path in (name, then))
    for key, tensor in state.items():
        torch.testing.assert_close(tensor, other[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_be_compact_is_refused_by_name(runs: tuple[Path, list[Run]], setting: str) -> None:
    done = runs[1][3 + [*REFUSED].index(setting)]
    assert done.code == 2
    assert REFUSED[setting] in " ".join(done.err.split())
