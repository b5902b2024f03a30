"""What two or four processes do for `test_sharded_masks.py`: `torchrun --nproc-per-node 4 tensor_scenarios.py FOLDER WHAT`.

A GPT of two blocks in float64, whose masks are held against those of one process at every step.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, optim
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional

import iftplan as ift
from iftplan import nn
from iftplan.nn.masks.shards import local, whole
from iftplan.nn.sources.zoo.gpt2 import GPT2LMHeadModel, GPT2Sizes
from iftplan.nn.training.parallel.arrangement import Arrangement, large_modules
from iftplan.nn.training.parallel.clipping import clip_
from iftplan.nn.training.parallel.recomputation import recompute_
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.states import (
    load_model_state_,
    load_optimizer_state_,
    model_state,
    optimizer_state,
    parts_like,
)
from iftplan.plans.plan import Plan
from iftplan.runs.schedules import Updates
from tests.support.processes.messages import Messages, carried, rise

STEPS = 12
SIZES = GPT2Sizes(layers=2, width=16, heads=2, vocabulary=32, context=8)
WIDE = GPT2Sizes(layers=2, width=128, heads=4, vocabulary=64, context=8)
"""Whose largest layers are gathered by themselves."""
BATCH = 8


def gpt(kind: torch.dtype = torch.float64, sizes: GPT2Sizes = SIZES) -> torch.nn.Module:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(sizes).to(kind)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def plan(sizes: GPT2Sizes = SIZES) -> Plan:
    model = gpt(torch.float32, sizes)
    return ift.plan(ift.read_model(model, f"1x{sizes.context}:int64"), None, "1/2", keep_dense=())


class Run:
    """A network in training, arranged over all processes or alone."""

    def __init__(
        self,
        arrangement: Arrangement,
        algorithm: Any = None,
        kind: torch.dtype = torch.float64,
        sizes: GPT2Sizes = SIZES,
    ) -> None:
        self.arrangement, self.sizes = arrangement, sizes
        self.model = nn.apply(plan(sizes), gpt(kind, sizes)).to(kind)
        if arrangement.world > 1:
            if arrangement.tensor == 2 and sizes is SIZES:
                recompute_(self.model)
            arrangement.parallelize_(self.model, "cpu")
            nn.shard_masks_(self.model)
        optimizer = optim.SGD(self.model.parameters(), lr=0.3, momentum=0.9, foreach=False)
        self.masks = nn.Masking(self.model, optimizer, algorithm or nn.RigL(Updates(end=1000, interval=2)))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(32, (BATCH, 9), generator=torch.Generator().manual_seed(step))
        rank = distributed.get_rank() if self.arrangement.world > 1 else 0
        mine = tokens[self.arrangement.share(rank) :: self.arrangement.data]
        return mine[:, :-1], mine[:, 1:]

    def backward(self, step: int, parts: int = 1) -> None:
        x, y = self.batch(step)
        for i, (a, b) in enumerate(zip(x.chunk(parts), y.chunk(parts), strict=True)):
            if isinstance(self.model, FSDPModule):
                self.model.set_requires_gradient_sync(i == parts - 1)
            logits = self.model(a).logits
            (functional.cross_entropy(logits.flatten(0, 1), b.reshape(-1)) / parts).backward()

    def train(self, steps: range, parts: int = 1, most: float = 0.0) -> list[str]:
        found = []
        for step in steps:
            self.backward(step, parts)
            self.masks.step()
            if most:
                clip_(self.model.parameters(), most)
            self.masks.optimizer.step()
            self.masks.optimizer.zero_grad()
            found.append(self.digest())
        return found

    def digest(self) -> str:
        masks = (whole(mask) for mask in self.masks.masks().values())
        return sha256(b"".join(mask.contiguous().numpy().tobytes() for mask in masks)).hexdigest()

    def save(self, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        state = {
            "model": model_state(self.model, parts=True),
            "optimizer": optimizer_state(self.model, self.masks.optimizer, parts=True),
            "masks": self.masks.state_dict(parts=True),
        }
        checkpoints.write_sharded(folder, step, state).result()

    def load(self, folder: Path) -> None:
        found = checkpoints.newest(folder, print, parts_like(self.model))
        assert found is not None
        load_model_state_(self.model, found[1]["model"])
        load_optimizer_state_(self.model, self.masks.optimizer, found[1]["optimizer"])
        self.masks.load_state_dict(found[1]["masks"])

    def metrics(self) -> dict[str, float]:
        return self.masks.metrics()


# -- four processes ----------------------------------------------------------------------------------------

ARRANGED: dict[str, tuple[int, int]] = {
    "2 parts x 2 tensor": (2, 1),
    "4 tensor": (4, 1),
    "2 replicas x 2 parts": (1, 2),
    "2 replicas x 2 tensor": (2, 2),
}


def arranged(folder: Path) -> Any:
    return {name: _arranged(folder, name, *sizes) for name, sizes in ARRANGED.items()}


def _arranged(folder: Path, name: str, tensor: int, replicas: int) -> Any:
    run = Run(Arrangement(4, tensor, replicas))
    digests = run.train(range(6))
    if name == "2 parts x 2 tensor":
        run.save(folder / "four", 6)
    digests += run.train(range(6, STEPS))
    masks = list(run.masks.masks().values())
    return {
        "digests": digests,
        "nnz": dict(run.masks.nnz),
        "metrics": run.metrics(),
        "parts": [local(mask).numel() / mask.numel() for mask in masks],
    }


def others(_: Path) -> Any:
    """SET, whose numbers are drawn in parts, and MEST, whose counts leave the plan's and come back."""
    found = {}
    for name, algorithm in ALGORITHMS.items():
        run = Run(Arrangement(4, 2), algorithm)
        found[name] = {"digests": run.train(range(STEPS)), "metrics": run.metrics()}
    return found


ALGORITHMS: dict[str, Any] = {
    "SET": nn.SET(Updates(end=1000, interval=2)),
    "MEST": nn.MEST(Updates(end=9, interval=2), soft=True),
    "SNFS": nn.SNFS(Updates(end=1000, interval=2), redistribution="none"),
}


def accumulated(_: Path) -> Any:
    return {"digests": Run(Arrangement(4, 2)).train(range(6), parts=2)}


def clipped(_: Path) -> Any:
    return {"digests": Run(Arrangement(4, 2)).train(range(6), most=0.5)}


def skipped(_: Path) -> Any:
    """One process' part of a gradient is not finite when an update is due: no process takes the step."""
    run = Run(Arrangement(4, 2))
    digests = []
    for step in range(4):
        run.backward(step)
        if step == 2 and distributed.get_rank() == 3:
            gradient = run.model.get_parameter("transformer.h.0.mlp.c_fc.weight").grad
            assert gradient is not None
            local(gradient)[0, 0] = float("nan")
        run.masks.step()
        if step != 2:
            run.masks.optimizer.step()
        run.masks.optimizer.zero_grad()
        digests.append(run.digest())
    return {"digests": digests, "updates": run.masks.metrics()["mask_updates"]}


def halved(_: Path) -> Any:
    """bfloat16 computes, float32 keeps."""
    run = Run(Arrangement(4, 2), kind=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        digests = run.train(range(5))
    kinds = {str(p.dtype) for p in run.model.parameters()}
    return {"digests": digests, "kinds": sorted(kinds), "nnz": sum(run.masks.nnz.values())}


def refused(_: Path) -> Any:
    try:
        Run(Arrangement(4, 2), nn.RigL(Updates(end=1000), redistribution="magnitude"))
    except ift.InputError as error:
        return {"message": str(error)}
    return {"message": "no error"}


def planned(_: Path) -> Any:
    """Bytes that a process has, allocates and sends under each arrangement."""
    return {name: _measured(*sizes) for name, sizes in ARRANGED.items()}


def _measured(tensor: int, replicas: int) -> Any:
    run = Run(Arrangement(4, tensor, replicas), nn.RigL(Updates(end=1000, interval=3)), torch.float32, WIDE)
    optimizer = run.masks.optimizer
    run.train(range(1))
    step, update = Messages(), Messages()
    with step:
        run.backward(1)
        run.masks.step()
        optimizer.step()
        optimizer.zero_grad()
    run.train(range(2, 3))
    sizes = {"step": rise(lambda: run.backward(3))}
    names = {layer.weight for layer in plan(WIDE).layers if layer.weight}
    weights = [p for name, p in run.model.named_parameters() if name in names]
    seen = run.masks.exploration
    factors: Any = run.masks._subject.factors
    sizes |= {
        "weights": bytes_of(weights),
        "gradients": bytes_of([p.grad for p in weights if p.grad is not None]),
        "optimizer": bytes_of([optimizer.state[p]["momentum_buffer"] for p in weights]),
        "masks": bytes_of([*run.masks.masks().values(), *seen.ever.values(), *seen.always.values()]),
        "factors": bytes_of(factors._factors),
    }

    def updated() -> None:
        run.masks.step()
        optimizer.step()

    with update:
        sizes["update"] = rise(updated)
    assert run.masks.metrics()["mask_updates"] == 1
    return {
        **sizes,
        "sent": dict(step.sent),
        "update_sent": update.sent["sum"],
        "others": _others(run, names),
    }


def _others(run: Run, names: set[str]) -> dict[str, int]:
    """What biases and norms add to the messages of a step: they are gathered with the layers that they are of."""
    large = large_modules(run.model)
    apart = {id(p) for module in large for p in module.parameters(recurse=False)}
    added: Counter[str] = Counter()
    arrangement = run.arrangement
    parts = arrangement.data // arrangement.replicas
    for name, parameter in run.model.named_parameters():
        if name not in names:
            mine = bytes_of([parameter])
            added["gather"] += (parts - 1) * mine * (2 if id(parameter) in apart else 1)
            added["scatter"] += (parts - 1) * mine
            added["sum"] += 2 * (mine * (arrangement.replicas - 1) // arrangement.replicas)
    return dict(added)


def heard(_: Path) -> Any:
    """Bytes that the network of all processes carries in a step, and what each process says that it sent."""
    found = {}
    for name in ("2 parts x 2 tensor", "2 replicas x 2 parts"):
        run = Run(Arrangement(4, *ARRANGED[name]), kind=torch.float32, sizes=WIDE)
        run.train(range(1))
        distributed.barrier()
        before = carried()
        distributed.barrier()
        with Messages() as messages:
            run.backward(1)
        distributed.barrier()
        found[name] = {"carried": carried() - before, "sent": dict(messages.sent)}
        distributed.barrier()
    return found


def bytes_of(tensors: list[Any]) -> int:
    return sum(local(x).numel() * x.element_size() for x in tensors)


# -- resumed ----------------------------------------------------------------------------------------------


def on_two(folder: Path) -> Any:
    return _continued(folder, Arrangement(2, 2), "four", "two", range(6, 8))


def again_on_four(folder: Path) -> Any:
    return _continued(folder, Arrangement(4, 2), "one", "", range(10, STEPS))


def _continued(folder: Path, arrangement: Arrangement, source: str, target: str, steps: range) -> Any:
    run = Run(arrangement)
    run.load(folder / source)
    digests = [run.digest(), *run.train(steps)]
    if target:
        run.save(folder / target, steps.stop)
    return {"digests": digests, "metrics": run.metrics()}


SCENARIOS: dict[str, tuple[Callable[[Path], Any], ...]] = {
    "begin": (arranged, others, accumulated, clipped, skipped, halved, refused, planned),
    "heard": (heard,),
    "two": (on_two,),
    "four": (again_on_four,),
}


def main(folder: Path, what: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=120))
    found = {}
    for scenario in SCENARIOS[what]:
        try:
            found[scenario.__name__] = scenario(folder)
        except Exception:
            found[scenario.__name__] = traceback.format_exc()
        distributed.barrier()
    (folder / f"{what}{os.environ['RANK']}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
