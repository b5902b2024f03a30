"""The processes of one data-parallel run, and a cheap check that their masks agree.

Every process chooses new masks by itself, from weights and mean gradients that all have alike, so that no mask is
ever sent. That they chose the same is checked after each update, by 64 bits for each mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import DivergedError
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.nn.masks.shards import is_sharded


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
        if self.count == 1 or not masks:
            return
        own = torch.stack([fingerprint(mask) for mask in masks.values()])
        gathered = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(gathered, own, self.group)
        everyone = torch.stack(gathered)
        differ = (everyone != everyone[0]).any(0).tolist()
        names = [name for name, differs in zip(masks, differ, strict=True) if differs]
        if names:
            others = (everyone != everyone[0]).any(1).nonzero().flatten().tolist()
            raise DivergedError(
                f"after step {step} the masks of {', '.join(names[:3])}{' …' if names[3:] else ''} on "
                f"{'rank' if len(others) == 1 else 'ranks'} {', '.join(map(str, others[:8]))} are not those of rank "
                "0. Apply the plan with the same seed on all ranks, average gradients before masks.step() (a "
                "synchronised backward pass), and resume all ranks from the same checkpoint."
            )


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
