"""Images streamed from the disk: how fast against reading alone and against images in memory, in how much memory, and whether kill -9 leaves a trace.

    python benchmarks/processes/streaming.py

Makes JPEGs of ImageNet's size (500×375, quality 90) in a temporary folder and measures, in rounds of everything one
after the other so that the machine's other work meets all alike:

- reading: workers read and decode, and do nothing else; the most that any loader of these files could reach,
- streamed: the same workers with a recipe's augmentation, as batches of bytes,
- streamed, with colours: color_jitter besides,
- in memory: decoded once, cropped and mirrored in batches by the process of the run,
- while a step runs: a step is a wait of the time that one batch takes, as for an accelerator; the ratio says how much
  of the shorter of both is hidden behind the longer one.

Then memory: that of the run's process and its workers, each shared page counted once. Then runs: one is made without
interruption, others are killed with SIGKILL at random moments and resumed with another number of workers, on one
process and on two, and all they write is compared to the bit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import psutil
import torch
from kill import differences, newest_file
from PIL import Image

import iftplan
from iftplan.nn.training.data.batches import TrainingBatches, batches
from iftplan.nn.training.data.images import Images
from iftplan.nn.training.data.opening import open_data
from iftplan.nn.training.data.samples import Batch, Task
from iftplan.nn.training.data.streaming.augmentation import decoded
from iftplan.nn.training.data.streaming.streamed_images import StreamedImages
from iftplan.runs.settings import DataConfig

ROOT = Path(iftplan.__file__).parents[1]
SIZE = 224
RECIPE = {"size": SIZE, "shorter_side": (256, 480), "eval_shorter_side": 256, "flip": True}
COLOURS = (0.4, 0.4, 0.4, 0.1)
BATCH = 32
CLASSES = 10
TESTS = 48
SETTINGS = (
    *("--set", "plan.model=zoo:resnet8-cifar", "--set", "method.interval=3", "--set", "data.size=32"),
    *("--set", "data.shorter_side=[36, 60]", "--set", "data.eval_shorter_side=36", "--set", "data.flip=true"),
    *("--set", "data.color_jitter=[0.4, 0.4, 0.4, 0.1]", "--set", "data.cutout=8", "--set", "data.mixup=0.2"),
    *("--set", "training.batch_size=16", "--set", "training.checkpoint_interval=2"),
    *("--set", "training.eval_interval=10", "--set", "training.threads=1"),
)


def make_images(root: Path, count: int) -> None:
    """Smooth noise with some grain: about as many bytes each as ImageNet's files."""
    random = np.random.default_rng(0)
    for part, number in (("train", count), ("test", TESTS)):
        for kind in range(CLASSES):
            (root / part / f"class{kind}").mkdir(parents=True)
        for i in range(number):
            coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            coarse[:, :, i % 3] //= 1 + i % CLASSES
            smooth = np.asarray(
                Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16
            )
            grain = random.integers(-16, 17, (375, 500, 1), dtype=np.int16)
            picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
            picture.save(root / part / f"class{i % CLASSES}" / f"{i:06d}.jpg", quality=90)


def silent(text: str) -> None:
    """What takes a while is told by the benchmark."""


# --- speed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoded:
    """Images that are read and decoded, of which one pixel is kept."""

    images: StreamedImages

    def __call__(self, number: int) -> Batch:
        count = len(self.images)
        places = [(number * BATCH + i) % count for i in range(BATCH)]
        pictures = [
            decoded(self.images.source.read(i), partial(self.images.source.name, i), SIZE) for i in places
        ]
        return torch.tensor([picture.getpixel((0, 0)) for picture in pictures]), torch.tensor(places)


def made_batches(task: Task) -> TrainingBatches:
    return TrainingBatches(task.train, 0, BATCH, len(task.train) // BATCH, 0, 1)


def rate(found: Iterator[Batch], count: int, wait: float = 0.0) -> float:
    """Images a second of so many batches, after those of the start."""
    for _ in range(4):
        next(found)
    began = time.perf_counter()
    for _ in range(count):
        next(found)
        if wait:
            time.sleep(wait)
    return count * BATCH / (time.perf_counter() - began)


def in_memory(task: Task, count: int) -> Images:
    """The first images, as the path for small data sets holds them."""
    pixels, labels = task.train.batch(torch.arange(min(count, len(task.train))), None)
    return Images(pixels, labels, torch.zeros(3), torch.ones(3), 28, True)


def measure_speed(root: Path, workers: int, rounds: int, count: int) -> None:
    opened = {
        name: open_data(
            DataConfig("image-folder", str(root), workers=workers, color_jitter=jitter, **RECIPE), silent
        )
        for name, jitter in (("streamed", None), ("streamed, with colours", COLOURS))
    }
    plain = opened["streamed"]
    assert isinstance(plain.train, StreamedImages)
    held = replace(plain, train=in_memory(plain, 1024))
    makers: dict[str, Callable[[], Iterator[Batch]]] = {
        "reading": lambda: batches(Decoded(plain.train), range(count + 4), workers),
        **{
            name: lambda task=task: batches(made_batches(task), range(count + 4), workers)
            for name, task in opened.items()
        },
        "in memory": lambda: batches(made_batches(held), range(count + 4), 0),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*makers, "while a step runs")}
    hidden = []
    for _ in range(rounds):
        for name, start in makers.items():
            rates[name].append(rate(start(), count))
        wait = BATCH / rates["streamed"][-1]
        rates["while a step runs"].append(rate(makers["streamed"](), count, wait))
        alone = rates["streamed"][-1]
        # both one after the other take twice as long as either: 0; the longer one alone: 1
        hidden.append(2 - alone / rates["while a step runs"][-1])
    print(f"\n{'images a second':<26}{'median':>8}   of reading, round by round")
    for name, found in rates.items():
        ratios = [one / other for one, other in zip(found, rates["reading"], strict=True)]
        print(
            f"{name:<26}{median(found):8.0f}   {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"part of the loading that is hidden behind a step of the same length: {median(hidden):.2f}")


# --- memory ---------------------------------------------------------------------------------------------------


def used(process: psutil.Process) -> float:
    """MiB of a process, pages that several share in equal parts."""
    return process.memory_full_info().pss / 2**20


def measure_memory(root: Path, workers: int) -> None:
    task = open_data(DataConfig("image-folder", str(root), workers=workers, **RECIPE), silent)
    own = psutil.Process()
    before = used(own)
    found = batches(made_batches(task), range(10**6), workers)
    for _ in range(20):
        next(found)
    after = used(own) + sum(used(child) for child in own.children())
    pixels = len(task.train) * 3 * SIZE**2 / 2**20
    found.close()  # type: ignore[attr-defined]  # a generator
    print(
        f"\nmemory: {after - before:.0f} MiB more with {workers} workers at work; the pixels of these "
        f"{len(task.train)} images would take {pixels:.0f} MiB"
    )


# --- kills ----------------------------------------------------------------------------------------------------


def started(directory: Path, processes: int, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """A training command, on several processes under torch's launcher."""
    program = ("-m", "iftplan")
    if processes > 1:
        program = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *program)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    said = directory.with_suffix(".stderr").open("wb")
    return subprocess.Popen(
        [sys.executable, *program, "train", *words, "--out", str(directory)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=said,
    )


def finish(directory: Path, processes: int, words: tuple[str, ...]) -> None:
    if started(directory, processes, words).wait():
        raise RuntimeError(directory.with_suffix(".stderr").read_text()[-3000:])


def kill_and_resume(data: Path, folder: Path, processes: int, kills: int, steps: int) -> list[str]:
    """Differences between a run that was killed so many times and one that was not."""
    whole, killed = folder / f"whole{processes}", folder / f"killed{processes}"
    begin = (*SETTINGS, "--data", str(data), "--steps", str(steps), "--set", "data.workers=2")
    finish(whole, processes, begin)
    random, points = Random(processes), []
    for number in range(kills):
        target = f"checkpoint-{int(steps * 0.9 * number / kills):09d}.pt"
        resume = (killed / "run.json").exists()
        workers, before = (0, 1, 3, 2)[number % 4], newest_file(killed)
        run = started(
            killed, processes, ("--resume", "--set", f"data.workers={workers}") if resume else begin
        )
        while newest_file(killed) <= max(target, before):
            if run.poll() is not None:
                raise RuntimeError(killed.with_suffix(".stderr").read_text()[-3000:])
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.3))
        if processes == 1:
            run.kill()  # its workers are left, and have to notice
        else:
            for process in (*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)):
                process.kill()
        run.wait()
        points.append(newest_file(killed).removeprefix("checkpoint-").removesuffix(".pt").lstrip("0"))
    finish(killed, processes, ("--resume", "--set", "data.workers=1"))
    found = differences(whole, killed)
    told = "differs: " + ", ".join(found) if found else "equal to the bit"
    print(
        f"{processes} process(es), killed {kills} times after the checkpoints of step {', '.join(points)}: {told}",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=24, help="of each measurement")
    parser.add_argument("--kills", type=int, default=10, help="of the run on one process")
    parser.add_argument("--kills-on-two", type=int, default=3, help="of the run on two")
    parser.add_argument("--steps", type=int, default=60)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name, "data")
        make_images(data, asked.images)
        size = sum(path.stat().st_size for path in data.rglob("*.jpg"))
        print(
            f"{asked.images} images of 500×375, {size / (asked.images + TESTS) / 1024:.0f} KiB each",
            flush=True,
        )
        measure_speed(data, asked.workers, asked.rounds, asked.batches)
        measure_memory(data, asked.workers)
        kills = ((1, asked.kills), (2, asked.kills_on_two))
        differ = [
            kill_and_resume(data, Path(name), world, count, asked.steps) for world, count in kills if count
        ]
    sys.exit(any(differ))


if __name__ == "__main__":
    main()
