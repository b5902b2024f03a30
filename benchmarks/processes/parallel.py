"""What masks cost a training run on several processes, beside the same run without masks.

    torchrun --nproc-per-node 4 benchmarks/processes/parallel.py --tensor 2 --width 512 --layers 4

A GPT under FSDP2 and tensor parallelism, once with RigL at density 1/2 and once dense. Rounds of both take turns in one
run, so that the ratio says more than the times. Memory is how far a process' peak (VmHWM, Linux) rises above what it
had before; its share is what it has of weights, gradients, optimizer state and masks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed.checkpoint  # imported before memory is looked at
from checkpoint_memory import MIB, rise
from torch import distributed, nn
from torch.nn.functional import cross_entropy

from iftplan.nn.application.sparsify import sparsify
from iftplan.nn.masking.algorithms.exchange.rigl import RigL
from iftplan.nn.masking.masking import Masking
from iftplan.nn.masking.processes import shard_masks_
from iftplan.nn.masks.shards import local
from iftplan.nn.sources.zoo.gpt2 import GPT2LMHeadModel, GPT2Sizes
from iftplan.nn.training.parallel.arrangement import Arrangement
from iftplan.nn.training.records import checkpoints, states
from iftplan.runs.schedules import Updates


class Trained:
    """One of the two runs."""

    def __init__(self, sizes: GPT2Sizes, arrangement: Arrangement, *, masked: bool) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = GPT2LMHeadModel(sizes)
        if masked:
            self.model = sparsify(self.model, 0.5)
        arrangement.parallelize_(self.model, "cpu")
        shard_masks_(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), foreach=False)
        updates = Updates(end=10**9, interval=10**9)
        self.masks = Masking(self.model, self.optimizer, RigL(updates)) if masked else None
        self.tokens = torch.randint(sizes.vocabulary, (4, sizes.context))

    def step(self, *, update: bool = False) -> None:
        logits = self.model(self.tokens).logits
        cross_entropy(logits.flatten(0, 1), self.tokens.flatten()).backward()
        if self.masks is not None:
            self.masks._due = update
            self.masks.step()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def update(self) -> None:
        """What an update takes beside a step: gradients are there, and the optimizer's step is not in it."""
        assert self.masks is not None
        subject: Any = self.masks._subject
        regime: Any = self.masks._regime
        regime.scores = regime._scored()
        regime._updated(1)
        subject.factors.leave()

    def state(self) -> dict[str, Any]:
        return {
            "model": states.model_state(self.model, parts=True),
            "optimizer": states.optimizer_state(self.model, self.optimizer, parts=True),
            "masks": self.masks.state_dict(parts=True) if self.masks is not None else None,
        }

    def share(self) -> int:
        """Bytes of this process' parts."""
        parameters = list(self.model.parameters())
        slots = [s for p in parameters for s in self.optimizer.state[p].values() if s.dim()]
        masks = [] if self.masks is None else list(self.masks.masks().values())
        weights = sum(local(p).nbytes for p in parameters)
        factors = 4 * sum(local(mask).numel() for mask in masks)
        return (
            2 * weights
            + sum(local(s).nbytes for s in slots)
            + 3 * sum(local(m).nbytes for m in masks)
            + factors
        )


def timed(work: Callable[[], Any]) -> float:
    distributed.barrier()
    start = perf_counter()
    work()
    distributed.barrier()
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("tensor", 2), ("replicas", 1), ("width", 256), ("layers", 4), ("rounds", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    distributed.init_process_group("gloo")
    world = distributed.get_world_size()
    arrangement = Arrangement(world, asked.tensor, asked.replicas)
    sizes = GPT2Sizes(layers=asked.layers, width=asked.width, heads=4, vocabulary=256, context=64)
    masked, dense = (Trained(sizes, arrangement, masked=wanted) for wanted in (True, False))
    for run in (masked, dense):
        run.step()
    pairs = [(timed(masked.step), timed(dense.step)) for _ in range(asked.rounds)]
    updating = [timed(lambda: masked.step(update=True)) for _ in range(max(1, asked.rounds // 2))]
    folder = [tempfile.mkdtemp() if distributed.get_rank() == 0 else ""]
    distributed.broadcast_object_list(folder)
    place = Path(folder[0])
    logits = masked.model(masked.tokens).logits
    cross_entropy(logits.flatten(0, 1), masked.tokens.flatten()).backward()
    del logits
    rises = {"update": rise(masked.update)}
    masked.optimizer.zero_grad()
    rises["step"] = rise(masked.step)
    rises["dense step"] = rise(dense.step)
    rises["write"] = rise(lambda: checkpoints.write_sharded(place, 1, masked.state()).result())
    rises["read"] = rise(lambda: checkpoints.newest(place, print, states.parts_like(masked.model)))
    found: list[Any] = [None] * world
    distributed.all_gather_object(found, (masked.share() / MIB, rises))
    if distributed.get_rank() == 0:
        weights = sum(p.numel() for p in masked.model.parameters())
        largest = max(p.numel() for p in masked.model.parameters()) * 4 / MIB
        ratio = median(a / b for a, b in pairs)
        print(f"{weights / 1e6:.1f} M weights, the largest tensor {largest:.1f} MiB; {arrangement}")
        print(f"step with masks / without: {ratio:.3f} (median of {asked.rounds} pairs)")
        print(f"step with an update / without masks: {median(updating) / median(b for _, b in pairs):.3f}")
        for rank, (share, rose) in enumerate(found):
            print(
                f"process {rank}: share {share:.1f} MiB; "
                + ", ".join(f"{k} {v:.1f}" for k, v in rose.items())
            )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
