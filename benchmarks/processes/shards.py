"""Masks and checkpoints of a GPT that four processes share, held against one process that has all of it.

    python benchmarks/processes/shards.py --width 640 --layers 10 --kills 10

The network trains in float64 under RigL at density 1/2, with AdamW, on random tokens. Processes are arranged as 2 parts
(FSDP2) x 2 (tensor parallelism), under gloo. Three things are compared:

1. Masks after every step with those of one process.
2. Masks of a run that was begun on four processes and continued on two, on one and on four.
3. What four processes load after they were killed (signal 9), with what four undisturbed processes had at that step:
   weights, optimizer state and masks, by a digest of each process' part. Each step writes a sharded checkpoint beside
   the training. Half of the kills are aimed at the writing of a checkpoint, the others at training or at the start;
   some end one process alone, and the others have to end by themselves.

Processes are forked from one that has the libraries imported. Set TMPDIR to a place with room for three checkpoints of
some 34 bytes for each weight.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from signal import SIGKILL
from statistics import median
from typing import Any

import torch
import torch.distributed.checkpoint  # imported before processes are forked
import torch.distributed.fsdp
from checkpoint_memory import MIB, status
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy

from iftplan.nn.application.sparsify import sparsify
from iftplan.nn.masking.algorithms.exchange.rigl import RigL
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masking.processes import shard_masks_
from iftplan.nn.masks.shards import local, whole
from iftplan.nn.sources.zoo.gpt2 import GPT2LMHeadModel, GPT2Sizes
from iftplan.nn.training.parallel.arrangement import Arrangement
from iftplan.nn.training.records import checkpoints, states
from iftplan.runs.schedules import Updates

FOUR, TWO, ONE = Arrangement(4, 2), Arrangement(2, 2), Arrangement()
BATCH = 4
PATIENCE = 900.0
"""Seconds after which processes that do not go on have failed."""


@dataclass(frozen=True, slots=True)
class Job:
    """What processes are to do.

    Attributes:
        name: of its records.
        sizes: of the network.
        interval: steps between updates.
        end: the step to train up to.
        arrangement: of the processes.
        source: folder whose newest checkpoint is continued, if it has one.
        target: folder for a checkpoint of the last step, or of every step.
        always: whether every step writes one.
    """

    name: str
    sizes: GPT2Sizes
    interval: int
    end: int
    arrangement: Arrangement
    source: Path | None = None
    target: Path | None = None
    always: bool = False


class Trained:
    """The network of one process in training."""

    def __init__(self, job: Job) -> None:
        self.arrangement, self.sizes = job.arrangement, job.sizes
        torch.manual_seed(0)
        model = GPT2LMHeadModel(job.sizes).double()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.model: nn.Module = sparsify(model, 0.5)
        del model
        if job.arrangement.world > 1:
            job.arrangement.parallelize_(self.model, "cpu")
            shard_masks_(self.model)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, foreach=False)
        self.masks = Masking(self.model, optimizer, RigL(Updates(end=10**6, interval=job.interval)))

    def step(self, number: int) -> None:
        shape = (BATCH, self.sizes.context + 1)
        drawn = torch.Generator().manual_seed(number)
        tokens = torch.randint(self.sizes.vocabulary, shape, generator=drawn)
        rank = distributed.get_rank() if self.arrangement.world > 1 else 0
        mine = tokens[self.arrangement.share(rank) :: self.arrangement.data]
        logits = self.model(mine[:, :-1]).logits
        cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten()).backward()
        self.masks.step()
        self.masks.optimizer.step()
        self.masks.optimizer.zero_grad()

    def chosen(self) -> str:
        """Digest of all masks, whole."""
        return digest([whole(mask) for mask in self.masks.masks().values()])

    def parts(self) -> str:
        """Digest of all that this process has of weights, optimizer state and masks."""
        slots = self.masks.optimizer.state
        own = [x for p in self.model.parameters() for x in (p.detach(), *slots.get(p, {}).values())]
        return digest([local(x) for x in (*own, *self.masks.masks().values())])

    def state(self) -> dict[str, Any]:
        return {
            "model": states.model_state(self.model, parts=True),
            "optimizer": states.optimizer_state(self.model, self.masks.optimizer, parts=True),
            "masks": self.masks.state_dict(parts=True),
        }

    def load(self, folder: Path) -> int:
        """Continue the newest checkpoint; its step, 0 where there is none. One that is refused is an error."""
        found = checkpoints.newest(folder, refuse, states.parts_like(self.model))
        if found is None:
            return 0
        step, state = found
        states.load_model_state_(self.model, state["model"])
        states.load_optimizer_state_(self.model, self.masks.optimizer, state["optimizer"])
        self.masks.load_state_dict(state["masks"])
        return step


def digest(tensors: list[Tensor]) -> str:
    found = sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()


def refuse(message: str) -> None:
    raise RuntimeError(f"a damaged checkpoint is there: {message}")


def train(job: Job, folder: Path, rank: int) -> None:
    """What one process does; a line of JSON for each step, and one for what it began with."""
    run, pending = Trained(job), None
    with (folder / f"{job.name}.{rank}").open("a", buffering=1) as record:
        begin = run.load(job.source) if job.source else 0
        record.write(json.dumps({"loaded": begin, "parts": run.parts(), "masks": run.chosen()}) + "\n")
        for number in range(begin, job.end):
            start = time.perf_counter()
            run.step(number)
            row: dict[str, Any] = {"step": number + 1, "seconds": time.perf_counter() - start}
            row |= {"parts": run.parts(), "masks": run.chosen(), "nnz": dict(run.masks.nnz)}
            if job.target is not None and (job.always or number + 1 == job.end):
                if pending is not None:
                    pending.result()
                pending = checkpoints.write_sharded(job.target, number + 1, run.state())
            record.write(json.dumps({**row, "peak": status("VmHWM") / MIB}) + "\n")
        if pending is not None:
            pending.result()
    size = sum(p.numel() for p in run.model.parameters())
    (folder / f"{job.name}.size").write_text(str(size))


class Processes:
    """Forked processes that do one job together."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder, self.world = job, folder, job.arrangement.world
        store = tempfile.mktemp(dir=folder)  # torch makes the file
        self.running = {self._forked(rank, store): rank for rank in range(self.world)}
        self.codes: dict[int, int] = {}

    def _forked(self, rank: int, store: str) -> int:
        pid = os.fork()
        if pid:
            return pid
        said = os.open(self.folder / f"{self.job.name}.{rank}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        status = 1
        try:
            torch.set_num_threads(1)
            if self.world > 1:
                distributed.init_process_group(
                    "gloo",
                    init_method=f"file://{store}",
                    rank=rank,
                    world_size=self.world,
                    timeout=timedelta(seconds=300),
                )
            train(self.job, self.folder, rank)
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def ended(self) -> bool:
        """Whether all have, without waiting."""
        for pid, rank in list(self.running.items()):
            found, code = os.waitpid(pid, os.WNOHANG)
            if found:
                del self.running[pid]
                self.codes[rank] = os.waitstatus_to_exitcode(code)
        return not self.running

    def until(self, true: Callable[[], bool]) -> None:
        """Wait while they work.

        Raises:
            RuntimeError: they came to their end before.
        """
        wait(lambda: true() or self.ended(), f"what is waited for in {self.job.name}")
        if not self.running:
            said = [self.folder / f"{self.job.name}.{rank}.said" for rank in range(self.world)]
            told = "".join(path.read_text()[-2000:] for path in said)
            raise RuntimeError(f"the run ended before it was killed so often; give more --steps. {told}")

    def finish(self) -> list[list[dict[str, Any]]]:
        """Wait for the end; the records of all.

        Raises:
            RuntimeError: one failed; with what it said.
        """
        for pid, rank in self.running.items():
            self.codes[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.running = {}
        for rank, code in self.codes.items():
            if code:
                raise RuntimeError((self.folder / f"{self.job.name}.{rank}.said").read_text()[-3000:])
        return records(self.folder, self.job.name, self.world)

    def kill(self, ranks: set[int]) -> None:
        """End some with signal 9, wait for the others to end by themselves, and then end those that did not.

        Raises:
            RuntimeError: some went on without the others.
        """
        for pid, rank in self.running.items():
            if rank in ranks:
                os.kill(pid, SIGKILL)
        try:
            wait(self.ended, "the end of those that were left")
        finally:
            for pid in self.running:
                os.kill(pid, SIGKILL)
                os.waitpid(pid, 0)


def records(folder: Path, name: str, world: int) -> list[list[dict[str, Any]]]:
    """Lines that each process of a job has recorded; one that a kill cut off is left out."""
    texts = [(folder / f"{name}.{rank}").read_text() for rank in range(world)]
    return [[json.loads(line) for line in text.split("\n") if line.endswith("}")] for text in texts]


def wait(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} does not come")
        time.sleep(0.002)


def half_written(folder: Path) -> set[tuple[str, int]]:
    """Checkpoints in the making; killed processes leave one."""
    found = set()
    for path in folder.glob(".checkpoint-*"):
        with suppress(FileNotFoundError):  # renamed in the meantime
            found.add((path.name, path.stat().st_mtime_ns))
    return found


AIMS = ("training", "writing", "writing", "start")
LENGTHS = {"training": 1.0, "writing": 0.3, "start": 2.0}
"""Aim → part of a step's time in which the kill comes."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: what it was aimed at, of how many processes, and whether a checkpoint was half-written then."""

    aim: str
    processes: int
    half_written: bool


def killed(job: Job, folder: Path, kills: int, random: Random, seconds: float) -> list[Kill]:
    """Kill the processes so many times, then let them end.

    Args:
        job: that writes a checkpoint at every step, and continues it.
        folder: of records.
        kills: how many.
        random: what moments are drawn from.
        seconds: of a step.
    """
    place, said = job.target, []
    assert place is not None
    for number in range(kills):
        aim = AIMS[number % len(AIMS)]
        ranks = {random.randrange(4)} if number % 3 == 1 and aim != "start" else set(range(4))
        before, left = newest_name(place), half_written(place)
        running = Processes(job, folder)
        try:
            if aim == "training":
                running.until(lambda: newest_name(place) > before)  # noqa: B023
            elif aim == "writing":
                running.until(lambda: bool(half_written(place) - left))  # noqa: B023
            time.sleep(random.uniform(0.0, LENGTHS[aim]) * seconds)
        except BaseException:
            running.kill(set(range(4)))
            raise
        caught = bool(half_written(place) - left)
        running.kill(ranks)
        said.append(Kill(aim, len(ranks), caught))
        print(f"kill {number + 1}: {said[-1]}, the newest whole one: {newest_name(place)}", flush=True)
    Processes(job, folder).finish()
    return said


def newest_name(folder: Path) -> str:
    return max((path.name for path in folder.glob("checkpoint-*")), default="")


def by_step(records: list[dict[str, Any]], key: str) -> dict[int, Any]:
    """What a process recorded after each step, and of what it began with."""
    return {row.get("step", row.get("loaded")): row[key] for row in records if key in row}


def beside_one(job: Any, folder: Path, steps: int) -> list[str]:
    """Compare masks of four processes, and of a run that changes hands, with those of one; what differs."""
    (alone,) = Processes(job("alone", end=steps, arrangement=ONE), folder).finish()
    four = Processes(job("four", end=steps, arrangement=FOUR), folder).finish()
    masks, counts = by_step(alone, "masks"), by_step(alone, "nnz")
    size = int((folder / "four.size").read_text())
    print(f"{size / 1e6:.1f} M weights; one process: {len(set(masks.values()))} masks in {steps} steps")
    for name, ranks in (("one process", [alone]), ("four processes", four)):
        seconds = median(by_step(ranks[0], "seconds").values())
        peaks = ", ".join(f"{max(by_step(rows, 'peak').values()):.0f}" for rows in ranks)
        print(f"{name}: {seconds:.2f} s a step, peak of memory {peaks} MiB", flush=True)

    def differences(name: str, ranks: list[list[dict[str, Any]]]) -> list[str]:
        found = [
            f"{name}: process {rank} after step {step}"
            for rank, rows in enumerate(ranks)
            for key, expected in (("masks", masks), ("nnz", counts))
            for step, value in by_step(rows, key).items()
            if value != expected[step]
        ]
        print(f"masks {name}: {len(found)} differences from those of one process", flush=True)
        return found

    failed = differences("on four processes", four)
    places = [made(folder / name) for name in ("first", "second", "third")]
    half, third, fourth = steps // 2, steps * 2 // 3, steps * 5 // 6
    Processes(job("begun", end=half, arrangement=FOUR, target=places[0]), folder).finish()
    hands = (
        (f"from step {half} on two", third, TWO, places[0], places[1]),
        (f"from step {third} on one", fourth, ONE, places[1], places[2]),
        (f"from step {fourth} on four", steps, FOUR, places[2], None),
    )
    for name, end, arrangement, source, target in hands:
        asked = job(name, end=end, arrangement=arrangement, source=source, target=target)
        failed += differences(name, Processes(asked, folder).finish())
        shutil.rmtree(source)
    return failed


def beside_undisturbed(job: Any, folder: Path, steps: int, kills: int, seed: int) -> list[str]:
    """Compare what killed processes load and arrive at with what undisturbed ones had; what differs."""
    undisturbed = [by_step(rows, "parts") for rows in records(folder, "four", 4)]
    seconds = median(by_step(records(folder, "four", 4)[0], "seconds").values())
    place = made(folder / "checkpoints")
    asked = job("killed", end=steps, arrangement=FOUR, source=place, target=place, always=True)
    said = killed(asked, folder, kills, Random(seed), seconds)
    torn, failed = sum(one.half_written for one in said), []
    loaded = [row for row in records(folder, "killed", 4)[0] if "loaded" in row]
    for rank, rows in enumerate(records(folder, "killed", 4)):
        for row in rows:
            step = row.get("step", row.get("loaded"))
            if row["parts"] != undisturbed[rank][step]:
                failed.append(f"killed run: process {rank} at step {step}")
    print(
        f"{kills} kills, {torn} in the middle of a checkpoint; continued at steps "
        f"{', '.join(str(row['loaded']) for row in loaded)}: {len(failed)} differences from undisturbed processes"
    )
    return failed


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"width": 64, "layers": 2, "context": 16, "steps": 12, "interval": 2, "kills": 10, "seed": 0}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    network = GPT2Sizes(asked.layers, asked.width, asked.width // 32, vocabulary=256, context=asked.context)
    job = partial(Job, sizes=network, interval=asked.interval)
    with tempfile.TemporaryDirectory() as name:
        failed = beside_one(job, Path(name), asked.steps)
        failed += beside_undisturbed(job, Path(name), asked.steps, asked.kills, asked.seed)
    for sentence in failed:
        print(f"differs: {sentence}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
