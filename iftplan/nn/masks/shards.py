"""Tensors of which each process holds a part (DTensor, as FSDP2 makes them), and plain ones alike.

Masks are whole on every process, or spread as their weights are (`iftplan.nn.masks.sharded_masks`). What a step does
with them stays local, on the part of the mask that lies over the local part of the weight. Whole masks are a quarter of
the weights' size at most; their updates gather scores. Updates of sharded ones send counts only
(`iftplan.nn.masks.spread`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor.

    That class itself takes a second to import, which plain training need not.
    """
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """Part of a tensor that this process has, sharing memory; a plain tensor is its own part."""
    if not is_sharded(tensor):
        return tensor
    part: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return part


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor on every process. A collective: every process of the mesh has to call it."""
    if not is_sharded(tensor):
        return tensor
    gathered: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return gathered


def as_seen(tensor: Tensor, mask: Tensor) -> Tensor:
    """Part of a tensor that an update sees: this process' where the mask is sharded, else all.

    Args:
        tensor: of the mask's shape.
        mask: sharded or plain.
    """
    return local(tensor) if is_sharded(mask) else whole(tensor)


def groups_of(tensor: Tensor) -> tuple[Any, ...]:
    """Process groups over which a DTensor is split, one for each dimension of its mesh that has parts and no copies."""
    return _groups(tensor, copies=False)


def copies_of(tensor: Tensor) -> tuple[Any, ...]:
    """Process groups that have the same part of a DTensor, one for each dimension of its mesh that has copies."""
    return _groups(tensor, copies=True)


def _groups(tensor: Tensor, *, copies: bool) -> tuple[Any, ...]:
    spread: Any = tensor
    return tuple(
        spread.device_mesh.get_group(dim)
        for dim, placement in enumerate(spread.placements)
        if placement.is_replicate() == copies and spread.device_mesh.size(dim) > 1
    )


def true_counts(tensors: Sequence[Tensor]) -> list[int]:
    """Numbers of true entries of whole tensors; a collective if some are sharded, for all of them together."""
    counts = torch.tensor([int(local(tensor).count_nonzero()) for tensor in tensors])
    spread: dict[tuple[int, ...], tuple[tuple[Any, ...], list[int]]] = {}
    for i, tensor in enumerate(tensors):
        groups = groups_of(tensor) if is_sharded(tensor) else ()
        spread.setdefault(tuple(map(id, groups)), (groups, []))[1].append(i)
    for groups, indices in spread.values():
        own = counts[indices].to(local(tensors[indices[0]]).device)
        for group in groups:
            distributed.all_reduce(own, group=group)
        counts[indices] = own.to(counts.device)
    return [int(count) for count in counts]


def state_of(tensor: Tensor, *, parts: bool) -> Tensor:
    """Tensor that a checkpoint takes: a copy of the whole one, or the tensor itself with the parts it has.

    Args:
        tensor: sharded or plain.
        parts: whether sharded tensors stay so; if not, a collective.
    """
    return tensor.detach() if parts else whole(tensor).clone()


def part_of(everything: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that lies over `like`'s local part; nothing is sent.

    Args:
        everything: of `like`'s shape, the same on every process.
        like: sharded or plain.
    """
    return local(shard_like(everything, like))


def shard_like(everything: Tensor, like: Tensor) -> Tensor:
    """A whole tensor distributed as `like` is; nothing is sent.

    Args:
        everything: of `like`'s shape, the same on every process; returned as it is where it is sharded already.
        like: sharded or plain.
    """
    if not is_sharded(like) or is_sharded(everything):
        return everything
    from torch.distributed.tensor import DTensor, Replicate

    mesh = like.device_mesh  # type: ignore[attr-defined]
    replicas = DTensor.from_local(everything, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicas.redistribute(placements=like.placements)  # type: ignore[attr-defined]


def of_parts(part: Tensor, like: Tensor) -> Tensor:
    """A tensor of which this process has that part, distributed as `like` is; plain if `like` is plain.

    Args:
        part: of the shape of `like`'s local part.
        like: sharded or plain.
    """
    if not is_sharded(like):
        return part
    from torch.distributed.tensor import DTensor

    spread: Any = like
    return DTensor.from_local(
        part, spread.device_mesh, spread.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def reshard_(model: nn.Module) -> None:
    """Have FSDP2's modules hold parts: after a forward pass alone some hold whole copies that will be dropped."""
    for module in model.modules():
        if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
            module.reshard()  # type: ignore[operator]
