"""Tensors of which each process holds a part (DTensor, as FSDP2 makes them), and plain ones alike.

Masks are whole on every process: they are a quarter of the weights' size at most, and an update chooses among all
weights at once. What a step does with them stays local, on the part of the mask that lies over the local part
of the weight; only updates and checkpoints gather.
"""

from __future__ import annotations

from torch import Tensor, nn


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


def reshard_(model: nn.Module) -> None:
    """Have FSDP2's modules hold parts: after a forward pass alone some hold whole copies that will be dropped."""
    for module in model.modules():
        if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
            module.reshard()  # type: ignore[operator]
