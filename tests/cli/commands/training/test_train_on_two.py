"""`iftplan train` on two processes: the same masks on both at every update, and a resume on two or on one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import recorded_train
from tests.support.processes.launches import environment

STEPS = 20
SETTINGS = (
    *("--steps", str(STEPS), "--set", "training.batch_size=32", "--set", "method.interval=3"),
    *("--set", "training.eval_interval=4", "--set", "training.checkpoint_interval=5"),
    *("--set", "training.threads=1", "--set", "training.precision=32-true", "--set", "method.end=1.0"),
    *("--set", "training.spectra=evaluation"),
)
STOP = 9
"""Four steps after a checkpoint, which is one after an evaluation: losses have been added up in between."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Training:
    directory: Path
    logs: Path

    def result(self) -> dict[str, Any]:
        return json.loads((self.directory / "result.json").read_text())

    def metrics(self) -> str:
        return (self.directory / "metrics.csv").read_text()

    def spectra(self) -> list[str]:
        return (self.directory / "spectra.csv").read_text().splitlines()

    def masks(self, rank: int) -> dict[int, tuple[int, str]]:
        """Step → updates so far, and the masks' digest."""
        lines = (line.split() for line in (self.logs / f"{rank}.txt").read_text().splitlines())
        return {int(step): (int(updates), digest) for step, updates, digest in lines}


def train(
    folder: Path, name: str, *options: str, stop: int = 0, processes: int = 2, log: str = ""
) -> Training:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    logs = folder / f"{log or name}-logs"
    done = subprocess.run(
        [
            *(sys.executable, *launch, recorded_train.__file__, str(logs), str(stop)),
            *("train", "--out", str(folder / name), *options),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == (stop == 0), done.stderr[-3000:]
    return Training(folder / name, logs)


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def strategy(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return ("--set", f"training.strategy={request.param}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, strategy: tuple[str, ...]) -> Path:
    return tmp_path_factory.mktemp(strategy[-1][-4:])


@pytest.fixture(scope="module")
def whole(folder: Path, strategy: tuple[str, ...]) -> Training:
    return train(folder, "whole", *SETTINGS, *strategy)


@pytest.fixture(scope="module")
def broken(folder: Path, strategy: tuple[str, ...]) -> Training:
    """Both processes died after the same step; a copy for each way to go on."""
    found = train(folder, "broken", *SETTINGS, *strategy, stop=STOP)
    for name in ("on-two", "on-one", "on-other"):
        shutil.copytree(found.directory, folder / name)
    return found


def test_masks_are_the_same_on_both_processes_after_every_step(whole: Training) -> None:
    first, second = whole.masks(0), whole.masks(1)
    assert first == second
    assert sorted(first) == list(range(1, STEPS + 1))
    updates = len({count for count, _ in first.values()}) - 1
    assert updates == 6  # every third step of 20, from 0, and the first is none
    assert len({digest for _, digest in first.values()}) == 1 + updates


def test_spectra_are_of_whole_weights(whole: Training) -> None:
    """The digits network has two masked layers, whose weights FSDP cuts in two."""
    steps = [int(line.split(",")[0]) for line in whole.spectra()[1:]]
    assert steps == [step for step in range(0, STEPS + 1, 4) for _ in range(2)]


def test_two_processes_go_on_to_the_same_bit(folder: Path, whole: Training, broken: Training) -> None:
    assert sorted(broken.masks(0)) == list(range(1, STOP + 1))
    resumed = train(folder, "on-two", "--resume", log="two")
    assert resumed.result() == whole.result()
    assert resumed.metrics() == whole.metrics()
    assert resumed.spectra() == whole.spectra()
    assert min(resumed.masks(1)) == 6
    assert resumed.masks(1).items() <= whole.masks(1).items()


def test_one_process_goes_on_from_what_two_wrote(folder: Path, whole: Training, broken: Training) -> None:
    """The same data, schedules and ledger; batch norms see whole batches, so weights are near and not equal."""
    resumed = train(folder, "on-one", "--resume", processes=1, log="one")
    found, wanted = resumed.result(), whole.result()
    for key in ("steps", "samples", "train_macs", "nnz", "mask_updates", "plan_digest", "run_digest"):
        assert found[key] == wanted[key], key
    assert found["loss"] == pytest.approx(wanted["loss"], rel=0.2)
    assert resumed.metrics().splitlines()[:2] == whole.metrics().splitlines()[:2]  # written by two
    assert min(resumed.masks(0)) == 6
    assert resumed.masks(0)[6] == whole.masks(0)[6]  # as the checkpoint had them; the next step moves them


def test_the_other_strategy_goes_on(
    folder: Path, whole: Training, broken: Training, strategy: tuple[str, ...]
) -> None:
    """FSDP from what DDP wrote, and the other way round; only sums are taken in another order."""
    other = "ddp" if strategy[-1].endswith("fsdp") else "fsdp"
    resumed = train(folder, "on-other", "--resume", "--set", f"training.strategy={other}", log="other")
    found, wanted = resumed.result(), whole.result()
    for key in ("steps", "samples", "train_macs", "nnz", "mask_updates", "plan_digest", "run_digest"):
        assert found[key] == wanted[key], key
    assert found["loss"] == pytest.approx(wanted["loss"], rel=0.02)
    assert min(resumed.masks(0)) == 6
    assert resumed.masks(0)[6] == whole.masks(0)[6]


def test_one_process_has_more_test_samples_than_the_other(tmp_path: Path) -> None:
    """Of 5 windows, 3 and 2: FSDP gathers large layers in every forward pass, and all processes take part."""
    text = tmp_path / "text.txt"
    text.write_text("To plan, to check, to train. " * 240)
    settings = ("--set", "training.batch_size=2", "--set", "training.strategy=fsdp", "--steps", "1")
    waiting = ("--set", "training.timeout=60", "--data", str(text), "--recipe", "shakespeare-gpt")
    (row,) = train(tmp_path, "uneven", *settings, *waiting).metrics().splitlines()[1:]
    alone = train(tmp_path, "alone", *settings, *waiting, processes=1)
    (other,) = alone.metrics().splitlines()[1:]
    assert float(row.split(",")[3]) == pytest.approx(float(other.split(",")[3]), rel=0.01)
