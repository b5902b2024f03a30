"""Synaptic flow through a network: which weights carry most of what arrives of ones (arXiv 2006.05467)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, autograd, nn
from torch.func import functional_call

from iftplan.base.errors import InputError
from iftplan.nn.masks.masked_weights import MaskedWeight
from iftplan.nn.masks.shards import is_sharded
from iftplan.nn.torch_internals import tree_leaves, tree_map


@dataclass(frozen=True, slots=True, eq=False)
class Ones:
    """Inputs of a model with ones for every number, and one sample.

    Attributes:
        args: by position.
        kwargs: by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def like(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Self:
        """Inputs of the shapes of a batch's, and with one sample."""
        return cls(tuple(map(_ones, args)), {name: _ones(value) for name, value in kwargs.items()})


def synaptic_flow(
    model: nn.Module, weights: Sequence[MaskedWeight], inputs: Ones | None
) -> dict[str, Tensor]:
    """Parameter name → |θ·∂R/∂θ|, in double precision relative to the largest of all.

    R is the sum of the outputs, for inputs of ones, of the network of |θ| (arXiv 2006.05467, section 6). Batch norms
    scale by |γ| and add |β| alone; dropout is off. The model is not changed.

    Args:
        model: in the layout of its training.
        weights: whose scores are wanted.
        inputs: one sample of ones; None where the model has not been called yet.

    Raises:
        InputError: there are no such inputs, as for token numbers; or the model is spread over processes.
    """
    if inputs is None or not any(map(_is_of_reals, tree_leaves((inputs.args, dict(inputs.kwargs))))):
        raise InputError(
            "synaptic flow sends ones through the model instead of a sample, and this model takes token numbers, or was not called before masks.step(); take force or snip."
        )
    if any(is_sharded(parameter) for parameter in model.parameters()):
        raise InputError(
            "synaptic flow needs whole weights on each process, and the model is sharded; use DDP, or take force or snip."
        )
    state = {name: _positive(value) for name, value in model.named_parameters()}
    state |= {name: _neutral(name, value) for name, value in model.named_buffers()}
    wanted = [state[weight.name] for weight in weights]
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.enable_grad():
            for value in wanted:
                value.requires_grad_()
            output = functional_call(model, state, inputs.args, dict(inputs.kwargs))
            gradients = autograd.grad(_total(output), wanted, allow_unused=True)
    finally:
        for module, mode in training.items():
            module.training = mode
    scores = [
        torch.zeros_like(x) if g is None else (x * g).detach().abs()
        for x, g in zip(wanted, gradients, strict=True)
    ]
    largest = max(float(x.max()) for x in scores) or 1.0
    return {weight.name: x / largest for weight, x in zip(weights, scores, strict=True)}


def _ones(value: Any) -> Any:
    return tree_map(_one_sample, value)


def _one_sample(value: Any) -> Any:
    """Ones of the first sample's shape; of labels and masks the first sample itself."""
    if not isinstance(value, Tensor):
        return value
    first = (value[:1] if value.ndim else value).detach()
    return torch.ones_like(first, dtype=torch.float64) if value.is_floating_point() else first


def _is_of_reals(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _positive(value: Tensor) -> Tensor:
    return value.detach().double().abs() if value.is_floating_point() else value


def _neutral(name: str, value: Tensor) -> Tensor:
    """A buffer as the flow sees it: statistics of batches as they are before the first."""
    match name.rpartition(".")[2]:
        case "running_mean":
            return torch.zeros_like(value, dtype=torch.float64)
        case "running_var":
            return torch.ones_like(value, dtype=torch.float64)
        case _:
            return _positive(value)


def _total(output: Any) -> Tensor:
    """Sum of all numbers that a model returns; a loss that it computes of labels is none of them where there are others."""
    if isinstance(output, Tensor):
        return output.sum()
    parts = output.values() if isinstance(output, Mapping) else output
    numbers = [x for x in parts if isinstance(x, Tensor) and x.is_floating_point()]
    return torch.stack([x.sum() for x in [x for x in numbers if x.ndim] or numbers]).sum()
