"""What two processes do for `test_distributed.py`: `torchrun --nproc-per-node 2 distributed_scenarios.py FOLDER`.

Every scenario is a function of the folder; what it returns is written for each rank, or the traceback.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, optim
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import iftplan as ift
from iftplan import nn
from iftplan.base.errors import DivergedError
from iftplan.nn.masking.processes import Ranks, spare_broadcasts_
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.nn.masks.shards import local, whole
from iftplan.nn.training.records import checkpoints
from iftplan.nn.training.records.states import (
    load_model_state_,
    load_optimizer_state_,
    model_state,
    optimizer_state,
    parts_like,
)
from iftplan.runs.schedules import Constant, Updates

WIDTHS = (6, 9, 7, 3)  # odd, so that two processes hold unequal parts


def perceptron() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(WIDTHS)]
    return torch.nn.Sequential(*(x for layer in layers for x in (layer, torch.nn.GELU())))[:-1]


def sparse(*, dense_start: bool = False, structure: str | None = None) -> torch.nn.Module:
    spec, sparsity = ift.read_model(perceptron(), "4x6"), None if structure else "1/2"
    plan = ift.plan(spec, None, sparsity, keep_dense=(), mask=structure)
    return nn.apply(plan, perceptron(), dense_start=dense_start)


def rigl(interval: int = 2) -> nn.RigL:
    return nn.RigL(Updates(end=1000, interval=interval))


def batch(step: int, size: int = 16) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, WIDTHS[0], generator=torch.Generator().manual_seed(step))
    return x, x[:, : WIDTHS[-1]].argmax(1)


def share(step: int) -> tuple[Tensor, Tensor]:
    """This rank's part of a step's batch."""
    rank, world = (
        (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    )
    x, y = batch(step)
    return x[rank::world], y[rank::world]


def loss_of(model: torch.nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(data[0]), data[1])


def digest(masks: nn.Masking) -> str:
    return sha256(b"".join(m.numpy().tobytes() for m in masks.masks().values())).hexdigest()


def adam(model: torch.nn.Module) -> optim.Optimizer:
    return optim.AdamW(model.parameters(), lr=0.01)


def train(model: torch.nn.Module, forward: torch.nn.Module, masks: nn.Masking, steps: range) -> list[str]:
    """The masks' digest after every step."""
    found = []
    for step in steps:
        loss_of(forward, share(step)).backward()
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
        found.append(digest(masks))
    return found


def sharded(*, dense_start: bool = False, structure: str | None = None) -> torch.nn.Module:
    model = sparse(dense_start=dense_start, structure=structure)
    for layer in model.children():
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer)
    fully_shard(model)  # in place
    return model


def hold(masks: nn.Masking) -> list[str]:
    """Weights whose values or slots are not zero off their mask, looked at whole."""
    wrong = []
    for weight in nn.masked_weights(masks.model):
        tensors = {"weight": weight.parameter.detach(), **masks.optimizer.state[weight.parameter]}
        for key, tensor in tensors.items():
            if tensor.shape == weight.mask.shape and bool(whole(tensor)[~weight.mask].any()):
                wrong.append(f"{weight.name} {key}")
    return wrong


def line() -> torch.nn.Module:
    """Four weights, two of them active."""
    model = torch.nn.Linear(4, 1, bias=False)
    model.weight.data = torch.tensor([[3.0, 0.1, 0.0, 0.0]])
    model.register_buffer("weight" + SUFFIX, torch.tensor([[True, True, False, False]]))
    return model


# -- scenarios ---------------------------------------------------------------------------------------------


def mean_gradient(_: Path) -> Any:
    """Weight 2 has gradients +1 and -1 on the two ranks, weight 3 has .4 on both."""
    model = DistributedDataParallel(line())
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    masks = nn.Masking(model, optimizer, nn.RigL(Updates(end=1000, interval=1, begin=0), Constant(0.5)))
    sign = 1.0 if distributed.get_rank() == 0 else -1.0
    inputs = torch.tensor([[0.0, 0.0, sign, 0.4]])
    masks.steps = 1  # steps count from 0, where no update is due
    model(inputs).sum().backward()
    gradient = model.module.weight.grad.clone()
    masks.step()
    regime: Any = masks._regime
    scores = regime.scores["weight"].flatten().tolist()
    optimizer.step()
    alone = torch.tensor([0.0, 0.0, 1.0, 0.4])  # mean |g|, and rank 0's own |g|
    return {
        "gradient": gradient.flatten().tolist(),
        "scores": scores,
        "mask": model.module.weight_mask.flatten().tolist(),
        "of_mean_absolute": int(alone.argmax()),
    }


def data_parallel(folder: Path) -> Any:
    model = sparse()
    forward = DistributedDataParallel(model)
    masks = nn.Masking(forward, adam(model), rigl())
    digests = train(model, forward, masks, range(7))
    save(folder / "ddp", model, masks, 7)
    after = train(model, forward, masks, range(7, 12))
    return {"digests": digests + after, "off": hold(masks), "final": flat(model)}


def recycled(_: Path) -> Any:
    """Each rank measures activations on its part of a batch; both take the mean."""
    model = sparse()
    forward = DistributedDataParallel(spare_broadcasts_(model))
    masks = nn.Masking(forward, adam(model), rigl())
    neurons = []
    for step in range(8):
        train(model, forward, masks, range(step, step + 1))
        if step % 3 == 2:
            done = nn.recycle_(
                model, masks.optimizer, share(step)[0], threshold=0.7, step=step, average=mean_of_ranks
            )
            neurons.append({layer: list(found) for layer, found in done.layers.items()})
    return {"neurons": neurons, "off": hold(masks), "final": flat(model)}


def several_tasks(_: Path) -> Any:
    """Two tasks in one network, each rank with its part of every batch."""
    model = sparse()
    forward = DistributedDataParallel(spare_broadcasts_(model))
    return learn_tasks(model, forward)


def learn_tasks(model: torch.nn.Module, forward: torch.nn.Module) -> dict[str, Any]:
    """The masks' digest after every step of two tasks, and what the network answers as each of them."""
    shared, digests = nn.TaskMasks(model), []
    for first, name in ((0, "first"), (20, "second")):
        shared.begin_(name)
        masks = nn.Masking(forward, adam(model), rigl())
        for step in range(first, first + 6):
            digests += train(model, forward, masks, range(step, step + 1))
            shared.hold_()
        masks.finish()
        shared.finish_()
    answers = [shared.use_(name)(batch(99)[0]).flatten().tolist() for name in shared.names]
    return {"digests": digests, "answers": answers, "used": shared.capacity.used}


def mean_of_ranks(sizes: Tensor) -> Tensor:
    total = sizes.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def accumulated(_: Path) -> Any:
    """Two batches for a step: the first is not sent, so that only the second backward pass averages."""
    model = spare_broadcasts_(sparse())
    forward = DistributedDataParallel(model)
    masks = nn.Masking(forward, adam(model), rigl())
    digests, mask = [], model.get_buffer("0.weight_mask")
    written = mask._version
    for step in range(6):
        for part in (0, 1):
            with forward.no_sync() if part == 0 else nullcontext():
                (loss_of(forward, share(2 * step + part)) / 2).backward()
        masks.step()
        masks.optimizer.step()
        masks.optimizer.zero_grad()
        digests.append(digest(masks))
    return {
        "digests": digests,
        "updates": masks.metrics()["mask_updates"],
        "off": hold(masks),
        "written": mask._version - written,
    }


def broken(prepare: Callable[[torch.nn.Module], None]) -> str:
    try:
        model = sparse()
        prepare(model)
        nn.Masking(model, adam(model), rigl())
    except DivergedError as error:
        return str(error)
    return "no error"


def masks_differ(_: Path) -> Any:
    def swap(model: torch.nn.Module) -> None:
        if distributed.get_rank() == 1:
            mask = model.get_buffer("2.weight_mask").flatten()
            kept, absent = mask.nonzero()[0], (~mask).nonzero()[0]
            mask[kept], mask[absent] = False, True

    return {"message": broken(swap), "alike": broken(lambda _: None)}


def gradients_differ(_: Path) -> Any:
    """Nobody averages the gradients, so that masks part at the first update."""
    model = sparse()
    masks = nn.Masking(model, adam(model), rigl())
    try:
        train(model, model, masks, range(5))
    except DivergedError as error:
        return {"message": str(error), "steps": masks.steps}
    return {"message": "no error"}


def not_finite(_: Path) -> Any:
    """One rank's part of a gradient overflows: both ranks postpone."""
    model = sharded()
    masks = nn.Masking(model, adam(model), rigl(interval=2))
    digests = [digest(masks)]
    for step in range(4):
        loss_of(model, share(step)).backward()
        if step == 2 and distributed.get_rank() == 1:
            local(model[0].weight.grad)[0, 0] = float("nan")
        masks.step()
        if step != 2:
            masks.optimizer.step()
        masks.optimizer.zero_grad()
        digests.append(digest(masks))
    return {"digests": digests, "updates": masks.metrics()["mask_updates"]}


def fully_sharded(folder: Path) -> Any:
    model = sharded()
    masks = nn.Masking(model, adam(model), rigl())
    digests = train(model, model, masks, range(7))
    save(folder / "fsdp", model, masks, 7)
    model(batch(0)[0])  # leaves whole copies about
    after = train(model, model, masks, range(7, 12))
    parts = [tuple(local(p).shape) for p in model.parameters()]
    return {"digests": digests + after, "off": hold(masks), "parts": parts, "final": flat(model)}


SOURCES = tuple(f"{kind}{form}" for kind in ("single", "ddp", "fsdp") for form in ("", "-shards"))


def resumed(folder: Path) -> Any:
    """Two ranks continue what one process wrote, and what two wrote otherwise."""
    found = {}
    for source in SOURCES:
        for kind in ("ddp", "fsdp"):
            model = sharded() if kind == "fsdp" else sparse()
            forward = DistributedDataParallel(model) if kind == "ddp" else model
            masks = nn.Masking(forward, adam(model), rigl())
            load(folder / source, model, masks)
            alike = same(state_of(model, masks), checkpoints.newest(folder / source, print)[1])
            digests = train(model, forward, masks, range(7, 12))
            found[f"{source} to {kind}"] = {
                "alike": alike,
                "digests": digests,
                "off": hold(masks),
                "final": flat(model),
            }
    return found


REMEMBERING: dict[str, Any] = {
    "SR-STE": nn.SRSTE(pull=0.01, refresh=2),
    "Top-KAST": nn.TopKAST(0.2, pull=0.01, refresh=2),
    "SNFS": nn.SNFS(Updates(end=1000, interval=2)),
    "FORCE": nn.Force(rounds=7),
    "mask decay": nn.MaskDecay(0.3, begin=2, refresh=2),
    "structure decay": nn.StructureDecay(6, begin=2, refresh=2),
    "CAST": nn.CAST(0.05, refresh=2, end=4),
    "SaRA": nn.SaRA(refresh=2, nuclear=0.02),
}
"""Algorithms that keep tensors beside the model: dense weights, averages, the weights of the beginning."""
STRUCTURES = {"structure decay": "1:3+pad"}
"""Of the masks of those that are not for unstructured ones; the last layer has seven inputs, which are two groups and a shorter one."""


def remembering(_: Path) -> Any:
    """What is kept beside a model, whole or in parts; continued from the state of step 5 as well."""
    return {f"{name}, {kind}": _remembered(name, kind) for name in REMEMBERING for kind in ("ddp", "fsdp")}


def _remembered(name: str, kind: str) -> Any:
    first, forward, masks = _begun(name, kind)
    digests = train(first, forward, masks, range(5))
    state = copy.deepcopy(state_of(first, masks))
    digests += train(first, forward, masks, range(5, 9))
    second, other, again = _begun(name, kind)
    load_model_state_(second, state["model"])
    load_optimizer_state_(second, again.optimizer, state["optimizer"])
    again.load_state_dict(state["masks"])
    train(second, other, again, range(5, 9))
    off = [w.name for w in nn.masked_weights(first) if whole(w.parameter.detach())[~w.mask].any()]
    alike = same(state_of(first, masks), state_of(second, again))
    masks.finish()
    return {"digests": digests, "alike": alike, "off": [*off, *hold(masks)], "final": flat(first)}


def _begun(name: str, kind: str) -> tuple[torch.nn.Module, torch.nn.Module, nn.Masking]:
    make = sharded if kind == "fsdp" else sparse
    model = make(dense_start=REMEMBERING[name].starts_dense, structure=STRUCTURES.get(name))
    forward = DistributedDataParallel(model) if kind == "ddp" else model
    return model, forward, nn.Masking(forward, adam(model), REMEMBERING[name])


def second_derivatives(_: Path) -> Any:
    return _refused(nn.GraSP(), "ddp")


def flow(_: Path) -> Any:
    """Synaptic flow asks for whole weights, which DDP has."""
    model = sparse(dense_start=True)
    forward = DistributedDataParallel(model)
    masks = nn.Masking(forward, adam(model), nn.SynFlow(rounds=5))
    return {
        "digests": train(model, forward, masks, range(3)),
        "refused": _refused(nn.SynFlow(), "fsdp")["message"],
    }


def _refused(algorithm: Any, kind: str) -> Any:
    model = sharded(dense_start=True) if kind == "fsdp" else sparse(dense_start=True)
    forward = DistributedDataParallel(model) if kind == "ddp" else model
    masks = nn.Masking(forward, adam(model), algorithm)
    try:
        loss_of(forward, share(0)).backward()
        masks.step()
        masks.optimizer.step()
    except ift.InputError as error:
        return {"message": str(error)}
    return {"message": "no error"}


# -- states ------------------------------------------------------------------------------------------------


def state_of(model: torch.nn.Module, masks: nn.Masking, *, parts: bool = False) -> dict[str, Any]:
    return {
        "model": model_state(model, parts=parts),
        "optimizer": optimizer_state(model, masks.optimizer, parts=parts),
        "masks": masks.state_dict(parts=parts),
    }


def save(folder: Path, model: torch.nn.Module, masks: nn.Masking, step: int) -> None:
    """Every process that holds a part calls it; rank 0 writes the single file, and each its part of the shards."""
    state, shards = state_of(model, masks), folder.with_name(f"{folder.name}-shards")
    folder.mkdir(exist_ok=True)
    shards.mkdir(exist_ok=True)
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        checkpoints.write(folder, step, state)
    writing = checkpoints.write_sharded(shards, step, state_of(model, masks, parts=True))
    with torch.no_grad():
        for (
            parameter
        ) in model.parameters():  # what becomes of weights in the meantime is not in the checkpoint
            local(parameter).neg_()
    writing.result()
    with torch.no_grad():
        for parameter in model.parameters():
            local(parameter).neg_()


def load(folder: Path, model: torch.nn.Module, masks: nn.Masking) -> None:
    found = checkpoints.newest(folder, print, parts_like(model))
    assert found is not None
    load_model_state_(model, found[1]["model"])
    load_optimizer_state_(model, masks.optimizer, found[1]["optimizer"])
    masks.load_state_dict(found[1]["masks"])


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def flat(model: torch.nn.Module) -> list[float]:
    return torch.cat([whole(p.detach()).flatten() for p in model.parameters()]).tolist()


SCENARIOS = (
    mean_gradient,
    data_parallel,
    recycled,
    several_tasks,
    accumulated,
    masks_differ,
    gradients_differ,
    not_finite,
    fully_sharded,
    resumed,
    remembering,
    second_derivatives,
    flow,
)


def answers(folder: Path) -> Iterator[tuple[str, Any]]:
    for scenario in SCENARIOS:
        try:
            yield scenario.__name__, scenario(folder)
        except Exception:
            yield scenario.__name__, traceback.format_exc()
        distributed.barrier()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    assert Ranks.of(torch.nn.Identity()).count == 2
    result = json.dumps(dict(answers(folder)))
    (folder / f"rank{os.environ['RANK']}.json").write_text(result)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
