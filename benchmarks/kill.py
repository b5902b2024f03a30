"""Kill one training run with SIGKILL again and again, continue it each time, and compare what it arrives at.

    python benchmarks/kill.py --kills 20

A run of digits is made once without interruption and once with. Some kills fall into the start of the process, some
anywhere in training, and some are aimed at the moments in which a checkpoint is half-written. In the end the
weights, masks, optimizer state, metrics.csv and result.json of both must be equal to the bit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

import iftplan
from iftplan.nn.training import checkpoints

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
PATIENCE = 120.0
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


def train(directory: Path, steps: int, *, resume: bool) -> subprocess.Popen[str]:
    """A run, or its continuation, in a process of its own."""
    what = ("--resume",) if resume else ("--steps", str(steps), *SETTINGS)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "iftplan", "train", *what, "--out", str(directory)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a run's end.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    said = process.communicate(timeout=900)[1]
    if process.returncode:
        raise RuntimeError(said[-3000:])


def kill(directory: Path, steps: int, aim: str, random: Random) -> Kill | None:
    """Continue a run and kill it; None where it came to its end first."""
    before = newest_file(directory)
    process = train(directory, steps, resume=(directory / "run.json").exists())
    if aim == "start":
        time.sleep(random.uniform(0.0, 4.0))
    else:
        wait_until(process, lambda: newest_file(directory) != before)
        time.sleep(random.uniform(0.0, 0.5))
        if aim == "writing":
            wait_until(process, lambda: any(directory.glob(".checkpoint-*")))
            time.sleep(random.uniform(0.0, 0.002))
    process.kill()
    said = process.communicate()[1]
    if process.returncode == 0:
        return None
    if process.returncode > 0:
        raise RuntimeError(said[-3000:])
    found = checkpoints.newest(directory, refuse) if directory.exists() else None
    return Kill(aim, found[0] if found else None, any(directory.glob(".checkpoint-*")))


def newest_file(directory: Path) -> str:
    return max((p.name for p in directory.glob("checkpoint-*.pt")), default="")


def wait_until(process: subprocess.Popen[str], true: Any) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and not true():
        if time.monotonic() > end:
            process.kill()
            raise RuntimeError("the run does not go on")
        time.sleep(0.0003)


def refuse(message: str) -> None:
    raise RuntimeError(f"a kill left a damaged checkpoint: {message}")


def killed_run(directory: Path, steps: int, kills: int, seed: int) -> list[Kill]:
    """Kill a run so many times, then let it end."""
    random, found = Random(seed), []
    for number in range(kills):
        one = kill(directory, steps, AIMS[number % len(AIMS)], random)
        if one is None:
            raise RuntimeError(f"the run ended after {number} kills; make it longer with --steps")
        found.append(one)
        print(
            f"{number + 1:3d}  {one.aim:<9}{'half-written' if one.half_written else '':<14}{one.step}",
            flush=True,
        )
    finish(train(directory, steps, resume=(directory / "run.json").exists()))
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
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        finish(train(whole, asked.steps, resume=False))
        found = killed_run(killed, asked.steps, asked.kills, asked.seed)
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
