"""The processes of one run, and a cheap check that their masks agree.

Every process chooses new masks by itself, from weights and mean gradients that all have alike, so that no mask is
ever sent. That they chose the same is checked after each update, by 64 bits for each mask. Of sharded masks every
process chooses its own part, and those that have the same part are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import DivergedError
from iftplan.nn.masks.masked_weights import SUFFIX, masked_weights
from iftplan.nn.masks.shards import copies_of, is_sharded, local, of_parts, shard_like


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train one model together.

    Attributes:
        group: torch's; None where this process is alone.
    """

    group: Any = None

    @classmethod
    def of(cls, model: nn.Module) -> Ranks:
        """Processes of a wrapped (DDP) or sharded (FSDP2) model, else all that there are."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        for module in model.modules():
            if isinstance(module, nn.parallel.DistributedDataParallel):
                return cls(module.process_group)
        meshes: set[Any] = {p.device_mesh for p in model.parameters() if is_sharded(p)}  # type: ignore[attr-defined]
        if len(meshes) == 1 and (mesh := meshes.pop()).ndim == 1:
            return cls(mesh.get_group())
        return cls(distributed.group.WORLD)

    @property
    def count(self) -> int:
        """Number of processes."""
        return 1 if self.group is None else distributed.get_world_size(self.group)

    def all(self, value: bool, device: torch.device) -> bool:
        """Whether a statement is true on every process; each has to ask."""
        if self.count == 1:
            return value
        votes = torch.tensor(int(value), device=device)
        distributed.all_reduce(votes, distributed.ReduceOp.MIN, self.group)
        return bool(votes)

    def check(self, masks: Mapping[str, Tensor], step: int) -> None:
        """Compare the masks of all processes; every process has to call this.

        Args:
            masks: by weight, whole.
            step: for the message.

        Raises:
            DivergedError: some differ, and which.
        """
        if self.count == 1:
            return
        for group, names in self._alike(masks):
            _compare(group, {name: local(masks[name]) for name in names}, step)

    def _alike(self, masks: Mapping[str, Tensor]) -> Iterator[tuple[Any, list[str]]]:
        """Groups of processes, and the masks of which all of a group have the same part."""
        found: dict[int, tuple[Any, list[str]]] = {}
        for name, mask in masks.items():
            for group in copies_of(mask) if is_sharded(mask) else (self.group,):
                found.setdefault(id(group), (group, []))[1].append(name)
        yield from found.values()


def _compare(group: Any, masks: Mapping[str, Tensor], step: int) -> None:
    """Refuse masks that are not the same on all processes of a group."""
    own = torch.stack([fingerprint(mask) for mask in masks.values()])
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(gathered, own, group)
    everyone = torch.stack(gathered)
    differ = (everyone != everyone[0]).any(0).tolist()
    names = [name for name, differs in zip(masks, differ, strict=True) if differs]
    if names:
        others = (everyone != everyone[0]).any(1).nonzero().flatten().tolist()
        first, *ranks = (str(distributed.get_global_rank(group, rank)) for rank in (0, *others[:8]))
        raise DivergedError(
            f"after step {step} the masks of {', '.join(names[:3])}{' …' if names[3:] else ''} on "
            f"{'rank' if len(others) == 1 else 'ranks'} {', '.join(ranks)} are not those of rank "
            f"{first}. Apply the plan with the same seed on all ranks, average gradients before masks.step() (a "
            "synchronised backward pass), and resume all ranks from the same checkpoint."
        )


@check_arguments
def shard_masks_(model: nn.Module) -> nn.Module:
    """Keep of each mask only the part that lies over this process' part of the weight, in place.

    Call it after the model was sharded (FSDP2, tensor parallelism) and before `Masking` is made. Updates then choose
    the same masks as whole ones would, without gathering a weight; `Static`, `SET`, `RigL`, `MEST` and `SNFS` can, with
    unstructured masks and counts that stay in their layers.
    """
    for weight in masked_weights(model):
        if is_sharded(weight.parameter):
            spread = shard_like(weight.mask, weight.parameter.detach())
            part = local(spread).clone()  # a view would keep the whole mask in memory
            weight.module._buffers[weight.parameter_name + SUFFIX] = of_parts(part, spread)
    return model


@check_arguments
def spare_broadcasts_(model: nn.Module) -> nn.Module:
    """Keep DDP from sending masks before each forward pass; call it before DDP wraps the model.

    Every rank draws and updates the same masks, and `Ranks.check` makes sure of it.
    """
    names = [name for name, _ in model.named_buffers() if name.endswith(SUFFIX)]
    ignore = nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(model, names)  # type: ignore[no-untyped-call]
    return model


def fingerprint(mask: Tensor) -> Tensor:
    """64 bits of a mask, as an integer tensor on its device; others for nearly every other mask.

    Eight entries at a time are taken as one number, mixed with their place as splitmix64 does, and added up, all
    modulo 2⁶⁴: the order of additions does not matter, and every device says the same.
    """
    flat = mask.contiguous().flatten().view(torch.uint8)
    words = nn.functional.pad(flat, (0, -len(flat) % 8)).view(torch.int64)
    mixed = words ^ torch.arange(len(words), dtype=torch.int64, device=mask.device).mul_(-0x61C8864680B583EB)
    mixed ^= mixed >> 30
    mixed *= -0x40A7B892E31B1A47
    mixed ^= mixed >> 27
    mixed *= -0x6B2FB644ECCEEE15
    mixed ^= mixed >> 31
    return mixed.sum()
