"""Networks that others wrote, through every stage: read, counted, widened, applied, measured, computed.

    python benchmarks/counting/zoos.py [--library timm] [--only 'resnet*'] [--quick] [--jobs 2] [--page docs/results/models-read.md]

All of torchvision's list, one network of every module of timm, small configurations of transformers, networks of
diffusers and segmentation-models-pytorch, as far as they are installed; nothing is downloaded and weights are random.
Every model has a process of its own, forked from one that has the libraries imported, with limits of time and memory.
What is found goes to a journal, a line a model, as soon as it is known: the same command goes on after a stop.
Only shapes are looked at, but for models below `--limit-weights`: those are computed with as well.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from zoo_sweep.entry import Entry
from zoo_sweep.forks import Fork
from zoo_sweep.journal import Journal, Record
from zoo_sweep.libraries import LIBRARIES, entries, versions
from zoo_sweep.stages import sweep
from zoo_sweep.table import failures, line, page, summary

LIMITS = ("out of time", "out of memory")
WRONG = ("refused in others' words", "crash", "apart")


def main() -> int:
    given = _arguments()
    torch.set_num_threads(1)
    chosen = [
        entry
        for entry in entries(given.library or tuple(LIBRARIES))
        if (given.quick is False or entry.quick)
        and (
            given.only is None
            or fnmatch.fnmatch(entry.name, given.only)
            or fnmatch.fnmatch(entry.key, given.only)
        )
    ]
    if given.list:
        print(*(f"{entry.key}  {', '.join(entry.inputs)}" for entry in chosen), sep="\n")
        return 0
    journal = Journal(given.journal)
    waiting = [entry for entry in chosen if _wanted(journal.records.get(entry.key), given.again)]
    print(
        f"{len(chosen)} models, {len(chosen) - len(waiting)} of them in {journal.path} already.", flush=True
    )
    _run(waiting, journal, given)
    records = [journal.records[entry.key] for entry in chosen if entry.key in journal.records]
    print(f"\n{summary(records)}\n\n{failures(records)}")
    if given.page is not None:
        given.page.write_text(page(records, versions()), encoding="utf-8")
    wrong = [one for record in records for one in record["stages"].values() if one["verdict"] in WRONG]
    return 1 if given.strict and wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--library", action="append", choices=LIBRARIES, help="only this library; may be repeated"
    )
    parser.add_argument("--only", metavar="PATTERN", help="only models whose name matches, such as 'resnet*'")
    parser.add_argument("--quick", action="store_true", help="a fixed sample of some forty models")
    parser.add_argument(
        "--again", action="store_true", help="also models that failed before, in whatever stage"
    )
    parser.add_argument("--jobs", type=int, default=1, help="models at a time (default: 1)")
    parser.add_argument("--limit-seconds", type=float, default=600, help="time of one model (default: 600)")
    parser.add_argument("--limit-gigabytes", type=float, default=6, help="memory of one model (default: 6)")
    parser.add_argument(
        "--limit-weights",
        type=int,
        default=12_000_000,
        help="larger models are not computed with (default: 12 million)",
    )
    parser.add_argument(
        "--journal", type=Path, default=Path("zoos.jsonl"), help="what was found so far (default: zoos.jsonl)"
    )
    parser.add_argument("--page", type=Path, help="write the page of the documentation here")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="end with 1 after a crash or a wrong answer; what is refused in our words passes",
    )
    parser.add_argument("--list", action="store_true", help="print the models and their inputs, and end")
    return parser.parse_args()


def _wanted(record: Record | None, again: bool) -> bool:
    if record is None:
        return True
    return again and any(stage["verdict"] != "yes" for stage in record["stages"].values())


def _run(waiting: list[Entry], journal: Journal, given: argparse.Namespace) -> None:
    running: dict[str, Fork] = {}
    queue = sorted(waiting, key=lambda entry: entry.quick)  # the sample first
    while queue or running:
        while queue and len(running) < given.jobs:
            entry = queue.pop()
            task = partial(_task, entry, given.limit_weights)
            running[entry.key] = Fork(task, given.limit_seconds, given.limit_gigabytes)
        for key, fork in list(running.items()):
            fork.look(0.2 / len(running))
            if fork.ended:
                del running[key]
                journal.add(record_of(key, fork))
                print(line(journal.records[key]), flush=True)


def _task(entry: Entry, limit: int, say: object) -> None:
    sweep(entry, say, limit)  # type: ignore[arg-type]


def record_of(key: str, fork: Fork) -> Record:
    """One model's line of the journal, from what its process reported and how it ended."""
    record: Record = {"model": key, "seconds": round(fork.took, 1), "ended": fork.ended, "stages": {}}
    begun = "read"
    for said in fork.said:
        if "begins" in said:
            begun = said["begins"]
        elif "stage" in said:
            record["stages"][said.pop("stage")] = said
        else:
            record |= said
    if fork.ended != "ended":
        verdict = fork.ended if fork.ended in LIMITS else "crash"
        record["stages"][begun] = {
            "verdict": verdict,
            "says": record.get("broken", fork.ended)[-600:],
            "seconds": record["seconds"],
        }
    record["torch"], record["at"] = torch.__version__.split("+")[0], time.strftime("%Y-%m-%d")
    return record


if __name__ == "__main__":
    sys.exit(main())
