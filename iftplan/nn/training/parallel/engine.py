"""The engine under a run: lightning-fabric, standalone; one process unless a launcher such as torchrun made more."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from iftplan.base.errors import InputError
from iftplan.nn.torch_internals import processor_has_bf16
from iftplan.nn.training.parallel.fabric import no_metrics_loaded
from iftplan.runs.settings import TrainingConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.parallel import ParallelStrategy
    from torch.distributed.device_mesh import DeviceMesh

    from iftplan.nn.training.parallel.arrangement import Arrangement


def engine_for(training: TrainingConfig, loggers: list[Any] | None = None) -> Fabric:
    """Lightning Fabric of a run, launched.

    Args:
        training: the loop's settings, of which the precision, the arrangement of processes and the seconds that they
            wait for each other are looked at.
        loggers: lightning-fabric's, told every row of metrics.

    Raises:
        InputError: lightning-fabric is missing, the processes cannot be arranged so, or no device computes in that precision.
    """
    try:
        with no_metrics_loaded():
            from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "training runs on lightning-fabric, which is not installed; install it with: pip install 'iftplan[train]'."
        ) from error
    if training.precision == "16-mixed" and not torch.cuda.is_available():
        raise InputError(
            "training.precision is 16-mixed, which needs a GPU, and this machine has none that torch sees; use bf16-mixed or 32-true."
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the record of a run says its precision
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The `srun` command is available"
        )  # --submit and torchrun start processes
        fabric = Fabric(
            accelerator="auto",
            devices=local,
            num_nodes=world // local,
            strategy=_strategy(training, world),
            precision=cast("Any", precision_for(training)),  # one of its literals
            loggers=loggers or [],
        )
    fabric.launch()
    return fabric


def _strategy(training: TrainingConfig, world: int) -> str | ParallelStrategy:
    """Strategy of Fabric; "auto" for a single process, which can continue the run of several."""
    from lightning_fabric.strategies.ddp import DDPStrategy

    timeout = timedelta(seconds=training.timeout)
    if training.strategy != "fsdp" and max(training.tensor_parallel, training.replicas) == 1:
        return "auto" if world == 1 else DDPStrategy(timeout=timeout)
    from iftplan.nn.training.parallel.arrangement import Arrangement

    arrangement = Arrangement.of(training, world)
    return "auto" if world == 1 else _sharding(arrangement, timeout)


def _sharding(arrangement: Arrangement, timeout: timedelta) -> ParallelStrategy:
    """FSDP2 and tensor parallelism: every process holds a part of each weight, its gradient and its optimizer state."""
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    def parts_(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
        return arrangement.parallelize_(model, mesh.device_type)

    return ModelParallelStrategy(
        parts_,
        data_parallel_size=arrangement.data,
        tensor_parallel_size=arrangement.tensor,
        timeout=timeout,
    )


def precision_for(training: TrainingConfig) -> str:
    """Precision in Fabric's words; "auto" is bfloat16 where the hardware and the kernels of masks compute it."""
    if training.precision != "auto":
        return training.precision
    return "bf16-mixed" if training.execution == "dense" and has_fast_bf16() else "32-true"


def has_fast_bf16() -> bool:
    """Whether the accelerator, or the processor where there is none, computes in bfloat16 itself."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    return processor_has_bf16()


@contextmanager
def differentiable(fabric: Fabric) -> Iterator[None]:
    """Compute with a bare network, in the engine's precision and with operators that have second derivatives.

    Of attention, those are matrix products. Torch warns of a circle between a weight and its gradient, which the end of
    the step breaks.
    """
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), fabric.autocast():
        warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")
        yield
