"""Kill one training run with SIGKILL again and again, continue it each time, and compare what it arrives at.

    python benchmarks/processes/kill.py --kills 20
    python benchmarks/processes/kill.py --kills 20 --sharded

A run of digits is made once without interruption and once with. Some kills fall into the start of the process, some
anywhere in training, and some are aimed at the moments in which a checkpoint is half-written. In the end the
weights, masks, optimizer state, metrics.csv and result.json of both must be equal to the bit.

Every run is a process of its own, forked from one that has the libraries imported and has computed nothing, so that
twenty starts do not take minutes; `--fresh` starts the interpreter anew each time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from signal import SIGKILL
from typing import Any

import lightning_fabric  # noqa: F401  (imported before processes are forked)
import sklearn.datasets  # noqa: F401
import torch
from torch import Tensor

import iftplan
import iftplan.cli.commands.training.train.command
import iftplan.nn.reading.read
import iftplan.nn.training.setup
from iftplan.cli.main import main as main_of_iftplan
from iftplan.nn.training.records import checkpoints

ROOT = Path(iftplan.__file__).parents[1]
SETTINGS = (
    "--set", "training.batch_size=32",
    "--set", "training.checkpoint_interval=3",
    "--set", "training.eval_interval=10",
    "--set", "data.crop=1",
    "--set", "optimizer.name=adamw",
    "--set", "optimizer.lr=0.01",
)  # fmt: skip
AIMS = ("training", "writing", "writing", "start")
LATEST = 0.75
"""Part of a run up to which kills are aimed: a fast machine makes several steps between the aim and the kill."""
PATIENCE = 600.0
"""Seconds after which a process that does not come to where it is to be killed has failed."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: what it was aimed at, and what it left.

    Attributes:
        aim: "start", "training" or "writing".
        step: of the newest whole checkpoint; None where there was none yet.
        half_written: whether a checkpoint was being written.
    """

    aim: str
    step: int | None
    half_written: bool


class Run:
    """A training command in a process of its own."""

    def __init__(
        self, directory: Path, steps: int, *, resume: bool, fresh: bool, form: str = "single"
    ) -> None:
        setting = f"training.checkpoints={form}"
        what = ("--resume",) if resume else ("--steps", str(steps), *SETTINGS, "--set", setting)
        self.said = directory.with_suffix(".stderr")
        words = ("train", *what, "--out", str(directory))
        self.pid = spawned(words, self.said) if fresh else forked(words, self.said)
        self.status: int | None = None

    def ended(self) -> bool:
        """Whether it has, without waiting."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self) -> int:
        """Its exit status, negative where a signal ended it."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def kill(self) -> int:
        """End it now; its exit status, which is its own if it came first."""
        if not self.ended():
            os.kill(self.pid, SIGKILL)
        return self.wait()


def spawned(words: tuple[str, ...], said: Path) -> int:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "iftplan", *words],
        {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(said), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        ],
    )


def forked(words: tuple[str, ...], said: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = ["iftplan", *words]
    status = 1
    try:
        torch.set_num_threads(1)
        main_of_iftplan()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(status)


def finish(run: Run) -> None:
    """Wait for a run's end.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    if run.wait():
        raise RuntimeError(run.said.read_text()[-3000:])


def kill(
    directory: Path, steps: int, aim: str, target: int, random: Random, *, fresh: bool, form: str = "single"
) -> Kill | None:
    """Continue a run and kill it after a step or, for "start", before its next checkpoint is whole; None where it ended."""
    before, left = newest_file(directory), half_written(directory)
    run = Run(directory, steps, resume=(directory / "run.json").exists(), fresh=fresh, form=form)
    if aim == "start":
        due = time.monotonic() + random.uniform(0.0, 4.0 if fresh else 1.0)
        wait_until(run, lambda: time.monotonic() > due or newest_file(directory) > before)
    else:
        wait_until(run, lambda: newest_file(directory) > max(before, f"checkpoint-{target:09d}"))
        time.sleep(random.uniform(0.0, 0.1))
        if aim == "writing":
            wait_until(run, lambda: half_written(directory) - left)
            time.sleep(random.uniform(0.0, 0.002))
    status = run.kill()
    if status == 0:
        return None
    if status > 0:
        raise RuntimeError(run.said.read_text()[-3000:])
    found = checkpoints.newest(directory, refuse) if directory.exists() else None
    return Kill(aim, found[0] if found else None, bool(half_written(directory) - left))


def newest_file(directory: Path) -> str:
    return max((p.stem for p in directory.glob("checkpoint-*")), default="")


def half_written(directory: Path) -> set[tuple[str, int]]:
    """Checkpoints in the making; a killed process leaves one, which the next write removes."""
    found = set()
    for path in directory.glob(".checkpoint-*"):
        with suppress(FileNotFoundError):  # renamed in the meantime
            found.add((path.name, path.stat().st_mtime_ns))
    return found


def wait_until(run: Run, true: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not run.ended() and not true():
        if time.monotonic() > end:
            run.kill()
            raise RuntimeError("the run does not go on")
        time.sleep(0.0003)


def refuse(message: str) -> None:
    raise RuntimeError(f"a kill left a damaged checkpoint: {message}")


def killed_run(
    directory: Path, steps: int, kills: int, seed: int, *, fresh: bool, form: str = "single"
) -> list[Kill]:
    """Kill a run so many times, then let it end."""
    random, found = Random(seed), []
    targets = sorted(random.uniform(0.0, LATEST) * steps for _ in range(kills))
    for number, target in enumerate(targets):
        one = kill(directory, steps, AIMS[number % len(AIMS)], int(target), random, fresh=fresh, form=form)
        if one is None:
            raise RuntimeError(f"the run ended after {number} kills; make it longer with --steps")
        found.append(one)
        print(
            f"{number + 1:3d}  {one.aim:<9}{'half-written' if one.half_written else '':<14}{one.step}",
            flush=True,
        )
    finish(Run(directory, steps, resume=(directory / "run.json").exists(), fresh=fresh, form=form))
    return found


def differences(left: Path, right: Path) -> list[str]:
    """What two finished runs do not have alike, to the bit."""
    names = ("plan.json", "metrics.csv", "result.json")
    files = [name for name in names if (left / name).read_bytes() != (right / name).read_bytes()]
    (step, one), (other_step, other) = (last(left), last(right))
    return [*files, *([] if step == other_step else ["step"]), *unequal(one, other, "state")]


def last(directory: Path) -> tuple[int, dict[str, Any]]:
    found = checkpoints.newest(directory, refuse)
    assert found is not None, f"{directory} has no checkpoint"
    return found


def unequal(left: Any, right: Any, where: str) -> list[str]:
    """Paths at which two states differ."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [path for key in left for path in unequal(left[key], right[key], f"{where}.{key}")]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        alike = left.dtype == right.dtype and left.shape == right.shape
        return [] if alike and torch.equal(bits(left), bits(right)) else [where]
    return [] if type(left) is type(right) and repr(left) == repr(right) else [where]


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sharded", action="store_true", help="checkpoints of the killed run are folders")
    parser.add_argument("--fresh", action="store_true", help="start an interpreter for each run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        finish(Run(whole, asked.steps, resume=False, fresh=asked.fresh))
        form = "sharded" if asked.sharded else "single"
        found = killed_run(killed, asked.steps, asked.kills, asked.seed, fresh=asked.fresh, form=form)
        differ = differences(whole, killed)
    halves = sum(one.half_written for one in found)
    print(f"{len(found)} kills, {halves} of them in the middle of a checkpoint; {asked.steps} steps")
    print(
        "differs: " + ", ".join(differ)
        if differ
        else "weights, masks, optimizer state and records: equal to the bit"
    )
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
