"""What a process sends and allocates, measured: collectives as they are called, bytes of its network, tensors' memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

GATHERS = ("_allgather_base_", "all_gather_into_tensor")
SCATTERS = ("_reduce_scatter_base_", "reduce_scatter_tensor")
SUMS = ("allreduce_", "all_reduce")


class Messages(TorchDispatchMode):
    """Bytes that this process sends by each kind of collective, if messages go round in a ring.

    A gathered tensor or one that is reduced and scattered is sent but for one part, one that is summed twice so.

    Attributes:
        sent: "gather", "scatter" or "sum" → bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its parts come by themselves
        found = func(*args, **(kwargs or {}))
        namespace, _, name = func._schema.name.partition("::")
        if namespace in ("c10d", "_c10d_functional"):
            self._count(name, args)
        return found

    def _count(self, name: str, args: tuple[Any, ...]) -> None:
        if name in GATHERS:
            part, among = (args[1], group_in(args)) if name == GATHERS[0] else (args[0], args[1])
            self.sent["gather"] += part.nbytes * (among - 1)
        elif name in SCATTERS:
            whole, among = (args[1], group_in(args)) if name == SCATTERS[0] else (args[0], args[2])
            self.sent["scatter"] += whole.nbytes * (among - 1) // among
        elif name in SUMS:
            tensors = [args[0]] if isinstance(args[0], Tensor) else args[0]
            among = group_in(args)
            self.sent["sum"] += sum(2 * (tensor.nbytes * (among - 1) // among) for tensor in tensors)
        elif name == "allgather_":
            self.sent["gather"] += sum(part.nbytes for part in args[1]) * (group_in(args) - 1)
        elif name not in ("wait_tensor", "_wrap_tensor_autograd", "barrier"):
            raise AssertionError(f"{name} is not counted")


def group_in(args: tuple[Any, ...]) -> int:
    """Number of processes of the group among a collective's arguments, by itself or by name."""
    for value in args[1:]:
        if isinstance(value, torch.ScriptObject) and "ProcessGroup" in str(value._type()):
            return ProcessGroup.unbox(value).size()
    return _resolve_process_group(args[-1]).size()


def carried() -> int:
    """Bytes that all processes of this network namespace have sent to this machine, with headers."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def rise(work: Callable[[], Any]) -> int:
    """Bytes of tensors by which a work's fullest moment is above its beginning."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None and seen.profiler.kineto_results is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
