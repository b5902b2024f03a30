"""What a run uses of its machine: bytes that it holds, and how many of the FLOPs that the machine is capable of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.timing.peak import measured_peak
from iftplan.nn.training.loop import Loop
from iftplan.plans.plan import Plan
from iftplan.runs.costs.memory import index_bits
from iftplan.runs.costs.utilization import Utilization


def utilization(loop: Loop, peak: float | Literal["measured"] | None) -> Utilization:
    """Work and time of the steps since the run was last started.

    Args:
        loop: at its end.
        peak: FLOPs a second; "measured" by a large product in the run's precision.
    """
    step, macs = loop.began
    samples = (loop.step - step) * loop.config.training.batch_size
    spent = loop.spending.macs - macs
    sparse = loop.config.training.execution == "sparse"
    if peak == "measured":
        precision = str(loop.fabric._precision.precision)
        found = {"bf16": torch.bfloat16, "16-mi": torch.float16}
        dtype = next((kind for name, kind in found.items() if precision.startswith(name)), torch.float32)
        peak = measured_peak(loop.fabric.device, dtype) * loop.fabric.world_size
    return Utilization(spent, spent if sparse else samples * loop.spending.executed_step, loop.seconds, peak)


def memory(loop: Loop, plan: Plan) -> dict[str, int]:
    """Bytes that a run holds, by what they are for, as its result has them; of all processes together, but activations.

    Activations are those that one part of a batch keeps in one process.
    """
    states = [
        value
        for state in loop.bare_optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    masks = [weight.mask for weight in masked_weights(loop.network)] if loop.masks is not None else []
    return {
        "parameter_bytes": _bytes(loop.network.parameters()),
        "gradient_bytes": _bytes(p for p in loop.network.parameters() if p.requires_grad),
        "optimizer_bytes": _bytes(states),
        "mask_bytes": _bytes(masks),
        "activation_bytes": loop.spending.activation_bytes,
        "index_bits": index_bits(plan, loop.spending.nnz) if masks else 0,
    }


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
