"""Memory that checkpoints take of a process, beside its share of the state.

    torchrun --nproc-per-node 2 benchmarks/processes/checkpoint_memory.py --width 2048 --layers 12

Linear layers under FSDP2 with AdamW, in float32: a state of three tensors for each weight. Each process resets its peak
(VmHWM, Linux) before it writes or reads a checkpoint, and prints how much higher than before it rose, in MiB.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint  # imported before memory is looked at
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

from iftplan.nn.masks.shards import local
from iftplan.nn.training.records import checkpoints, states

MIB = 2**20


def status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def rise(work: Callable[[], Any]) -> float:
    """How far the peak of memory rose above what was taken before, in MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would not show
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return (status("VmHWM") - before) / MIB


def network(width: int, layers: int) -> nn.Module:
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    return model


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, *, parts: bool) -> dict[str, Any]:
    keep = distributed.get_rank() == 0
    return {
        "model": states.model_state(model, keep=keep, parts=parts),
        "optimizer": states.optimizer_state(model, optimizer, keep=keep, parts=parts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=12)
    asked = parser.parse_args()
    distributed.init_process_group("gloo")
    model = network(asked.width, asked.layers)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, asked.width)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    folder = [tempfile.mkdtemp() if distributed.get_rank() == 0 else ""]
    distributed.broadcast_object_list(folder)
    shards, single = Path(folder[0], "shards"), Path(folder[0], "single")
    for path in (shards, single):
        path.mkdir(exist_ok=True)

    def gathered() -> None:
        state = state_of(model, optimizer, parts=False)
        if distributed.get_rank() == 0:
            checkpoints.write(single, 1, state)
        distributed.barrier()

    work: dict[str, Callable[[], Any]] = {
        "write sharded": lambda: checkpoints.write_sharded(
            shards, 1, state_of(model, optimizer, parts=True)
        ).result(),
        "read sharded": lambda: checkpoints.newest(shards, print, states.parts_like(model)),
        "write single": gathered,
        "read single": lambda: checkpoints.newest(single, print),
    }
    own = sum(local(parameter).nbytes for parameter in model.parameters()) * 3 / MIB
    tensor = max(parameter.nbytes for parameter in model.parameters()) / MIB
    found = {name: round(rise(step), 1) for name, step in work.items()}
    said: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(said, (round(own, 1), found))
    if distributed.get_rank() == 0:
        count = asked.layers * asked.width**2
        print(f"{count / 1e6:.1f} M weights; largest tensor {tensor:.1f} MiB")
        for rank, (share, rises) in enumerate(said):
            print(f"process {rank}: share {share} MiB; " + ", ".join(f"{k} {v}" for k, v in rises.items()))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
