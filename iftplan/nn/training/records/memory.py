"""Bytes that a run holds, as its result has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.nn.execution.layers import MASK, CompactLayer
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.training.records.ledger import Spending
from iftplan.plans.plan import Plan
from iftplan.runs.costs.memory import index_bits


def held_bytes(plan: Plan, network: nn.Module, optimizer: Optimizer, spending: Spending) -> dict[str, int]:
    """Bytes of a run by what they are for, of all processes together; and the bits of its masks' indices.

    Activations are those that one part of a batch keeps in one process.

    Args:
        plan: that is trained.
        network: the bare network.
        optimizer: torch's own, after a step.
        spending: the run's ledger.
    """
    states = [value for state in optimizer.state.values() for value in state.values()]
    return {
        "parameter_bytes": _bytes(network.parameters()),
        "gradient_bytes": _bytes(p for p in network.parameters() if p.requires_grad),
        "optimizer_bytes": _bytes(value for value in states if isinstance(value, Tensor)),
        "mask_bytes": _bytes(_masks(network)) if spending.nnz else 0,
        "activation_bytes": spending.activation_bytes,
        "index_bits": index_bits(plan, spending.nnz) if spending.nnz else 0,
    }


def _masks(network: nn.Module) -> Iterator[Tensor]:
    """Masks beside dense weights, and those of layers that are compact."""
    yield from (weight.mask for weight in masked_weights(network))
    for module in network.modules():
        mask = module._buffers.get(MASK)
        if isinstance(module, CompactLayer) and mask is not None:
            yield mask


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
