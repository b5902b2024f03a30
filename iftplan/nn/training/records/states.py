"""The state of a model and its optimizer as one process would have it: whole tensors on the CPU, under names.

So a checkpoint knows nothing of the processes that wrote it: what two wrote under DDP or FSDP2, one continues, and
the other way round. For sharded checkpoints, which know as little, tensors stay the parts that a process has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import fsum
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from iftplan.base.errors import StaleError
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.nn.masks.shards import is_sharded, reshard_, shard_like, whole
from iftplan.nn.training.records.shard_files import Place, Target, on_cpu

State = dict[str, Any]


def model_state(model: nn.Module, *, keep: bool = True, parts: bool = False) -> State:
    """Parameters and buffers by name. A collective where the model is sharded: every process has to call it.

    Args:
        model: bare, without an engine's wrapper.
        keep: whether this process wants the result; the others lend their parts, and get nothing.
        parts: for `checkpoints.write_sharded`: the model's own tensors, sharded ones as they are, in all processes.
    """
    if parts:
        reshard_(model)
        return {name: value.detach() for name, value in model.state_dict().items()}
    return {name: value for name, v in model.state_dict().items() if (value := _whole(v, keep)) is not None}


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names; of whole ones where they are sharded, one at a time."""
    found = sha256()
    for name, tensor in sorted(state.items()):
        found.update(name.encode())
        found.update(whole(tensor).cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def optimizer_state(
    model: nn.Module, optimizer: Optimizer, *, keep: bool = True, parts: bool = False
) -> State:
    """State and settings of the optimizer, parameters under their names; every process has to call it.

    Args:
        model: whose parameters the optimizer holds.
        optimizer: any of torch's.
        keep: whether this process wants the state; the others get nothing.
        parts: for `checkpoints.write_sharded`: the optimizer's own tensors, in all processes.
    """
    reshard_(model)
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    slots = {
        names[parameter]: {key: value if parts else _whole(value, keep) for key, value in state.items()}
        for parameter, state in optimizer.state.items()
    }
    groups = [
        {**_settings(group), "params": [names[p] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    return {"state": slots, "param_groups": groups} if keep or parts else {}


def parts_like(model: nn.Module) -> Target:
    """Target that `checkpoints.read` and `newest` load tensors into: those of a parameter's name and shape distributed as it is.

    Weights, their slots in the optimizer and dense weights behind masked ones are; masks are as the model has them.
    """
    reshard_(model)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def target(place: Place, empty: Tensor) -> Tensor:
        for part in place:
            name = str(part)
            if empty.dtype is torch.bool:
                like = buffers.get(name.removesuffix(SUFFIX) + SUFFIX)
            else:
                like = parameters.get(name) if empty.is_floating_point() else None
            if like is not None and is_sharded(like) and like.shape == empty.shape:
                return torch.empty_like(like.detach(), dtype=empty.dtype)
        return on_cpu(empty)

    return target


def load_model_state_(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load what `model_state` gave, each process its own part.

    Raises:
        StaleError: it is another model's.
    """
    own = model.state_dict()
    parts = {
        name: shard_like(_on(value, own[name]), own[name]) if name in own else value
        for name, value in state.items()
    }
    try:
        model.load_state_dict(parts)
    except RuntimeError as error:
        raise StaleError(f"the state is of another model: {error}") from error


def load_optimizer_state_(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `optimizer_state` gave, each process its own part.

    Args:
        model: whose parameters the optimizer holds.
        optimizer: changed in place.
        state: whole, with parameters under their names.

    Raises:
        StaleError: it is of other parameters, or they are grouped otherwise.
    """
    reshard_(model)
    parameters = dict(model.named_parameters())
    names = {parameter: name for name, parameter in parameters.items()}
    ours = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    theirs = [list(group["params"]) for group in state["param_groups"]]
    settings = {name: _settings(group) for group in state["param_groups"] for name in group["params"]}
    known = settings.keys() == set(names.values()) & {name for group in ours for name in group}
    # parameters spread otherwise are in groups of their own, with the settings of those beside them
    if not known or any(settings[name] != settings[group[0]] for group in ours for name in group):
        raise StaleError(
            f"the optimizer's state is of {sum(map(len, theirs))} parameters in {len(theirs)} groups, and this "
            f"optimizer holds {sum(map(len, ours))} in {len(ours)}, or under other names; resume with the model "
            "and the optimizer of the run."
        )
    index = {name: i for i, name in enumerate(name for group in ours for name in group)}
    slots = {
        index[name]: {key: _part(value, parameters[name]) for key, value in values.items()}
        for name, values in state["state"].items()
    }
    groups = [{**settings[group[0]], "params": [index[name] for name in group]} for group in ours]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _whole(value: Any, keep: bool) -> Any:
    if not isinstance(value, Tensor):
        return value if keep else None
    everything = whole(value.detach())  # every process takes part, whoever keeps it
    # copied: what is written must not change with the next step, and a slice would bring all of its storage
    return torch.clone(everything.cpu(), memory_format=torch.preserve_format) if keep else None


def _part(value: Any, parameter: nn.Parameter) -> Any:
    """Part of a slot that this process holds: if it has the parameter's shape, it is distributed as the parameter is."""
    if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0:
        return shard_like(_on(value, parameter), parameter.detach())
    return value


def _on(value: Tensor, like: Tensor) -> Tensor:
    return value.to(like.device) if isinstance(value, Tensor) else value


def _settings(group: Mapping[str, Any]) -> State:
    return {key: value for key, value in group.items() if key != "params"}


def share_buffers_(model: nn.Module) -> None:
    """Give every process the first one's buffers, such as batch statistics; masks are alike already."""
    if _alone():
        return
    for name, buffer in model.named_buffers():
        if not name.endswith(SUFFIX):
            distributed.broadcast(buffer, 0)


def gather_numbers(value: Tensor | None) -> list[float | None]:
    """Numbers of all processes, one each, on every process."""
    own_value = None if value is None else float(value)
    if _alone():
        return [own_value]
    values: list[float | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, own_value)
    return values


def own_number(values: Sequence[float | None], device: torch.device) -> Tensor | None:
    """Number of this process among those gathered; their mean among another number of processes."""
    rank, world = (0, 1) if _alone() else (distributed.get_rank(), distributed.get_world_size())
    known = [value for value in values if value is not None]
    if not known:
        return None
    value = known[rank] if len(known) == world else fsum(known) / len(known)
    return torch.tensor(value, dtype=torch.float64, device=device)


def _alone() -> bool:
    return not (distributed.is_available() and distributed.is_initialized())
