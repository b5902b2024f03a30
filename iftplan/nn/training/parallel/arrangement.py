"""Arrangement of a run's processes: copies × parts × tensor parallel, the last of them side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from iftplan.base.errors import InputError
from iftplan.nn.training.parallel.tensor_parallel import tensor_parallel_
from iftplan.runs.devices.layout import LARGE
from iftplan.runs.settings import TrainingConfig


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Numbers of processes along each dimension of the mesh.

    Attributes:
        world: all processes.
        tensor: that split each linear layer among them and see the same samples.
        replicas: groups that hold the whole model, each in parts (HSDP).
    """

    world: int = 1
    tensor: int = 1
    replicas: int = 1

    @classmethod
    def of(cls, config: TrainingConfig, world: int) -> Self:
        """Arrangement of so many processes under a run's settings; one alone has nothing to arrange.

        Raises:
            InputError: the processes cannot be arranged so.
        """
        tensor, replicas = config.tensor_parallel, config.replicas
        if config.strategy != "fsdp" and max(tensor, replicas) > 1:
            name = "tensor_parallel" if tensor > 1 else "replicas"
            raise InputError(
                f"training.{name} arranges processes that hold parts of the model, and training.strategy is {config.strategy}; set training.strategy=fsdp."
            )
        if world == 1:
            return cls()
        if world % (tensor * replicas):
            raise InputError(
                f"{world} processes cannot be arranged as {replicas} replica(s) of groups of {tensor} under tensor parallelism; start a multiple of {tensor * replicas} processes, or set training.tensor_parallel and training.replicas to divisors of {world}."
            )
        return cls(world, tensor, replicas)

    @property
    def data(self) -> int:
        """Number of groups that see samples of their own."""
        return self.world // self.tensor

    def share(self, rank: int) -> int:
        """Number of the group that a process belongs to, which says what samples it sees."""
        return rank // self.tensor

    def parallelize_(self, model: nn.Module, device: str) -> nn.Module:
        """Give each process its parts of the model, in place.

        Args:
            model: whole, the same on every process.
            device: type of the processes' devices.
        """
        from torch.distributed.fsdp import fully_shard

        mesh = self._mesh(device)
        if self.tensor > 1:
            tensor_parallel_(model, mesh["tensor"])
        if self.data > 1:
            among: Any = mesh["replicas", "parts"] if self.replicas > 1 else mesh["parts"]
            for module in large_modules(model):
                fully_shard(module, mesh=among)
            fully_shard(model, mesh=among)
        return model

    def _mesh(self, device: str) -> DeviceMesh:
        sizes = {"replicas": self.replicas, "parts": self.data // self.replicas, "tensor": self.tensor}
        used = {name: size for name, size in sizes.items() if size > 1 or name == "parts"}
        return init_device_mesh(device, tuple(used.values()), mesh_dim_names=tuple(used))


def large_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that are gathered by themselves; weights that several share, such as tied embeddings, are the model's."""
    modules = [module for module in model.modules() if module is not model]
    owners = Counter(id(p) for module in modules for p in module.parameters(recurse=False))
    own = {module: list(module.parameters(recurse=False)) for module in modules}
    return [
        module
        for module, parameters in own.items()
        if sum(p.numel() for p in parameters) >= LARGE and all(owners[id(p)] == 1 for p in parameters)
    ]
