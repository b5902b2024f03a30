"""2:4 weights as torch's semi-structured tensors, for NVIDIA's sparse tensor cores."""

from __future__ import annotations

from typing import Final, TypeVar

import torch
from torch import Tensor, nn

from iftplan.base.arguments import check_arguments
from iftplan.base.errors import InputError
from iftplan.nn.execution.execute import execute_dense_
from iftplan.nn.masks.masked_weights import SUFFIX
from iftplan.nn.meta.copies import deep_copy

Model = TypeVar("Model", bound=nn.Module)

_MULTIPLES: Final = {torch.float16: (32, 64), torch.bfloat16: (32, 64), torch.int8: (16, 128)}
"""What outputs and inputs must be multiples of. float32 is not here: torch packs 1:2 there, which would lose weights."""


@check_arguments
def semi_structured(model: Model) -> Model:
    """A copy in which the weight of every 2:4 linear layer is a semi-structured tensor, for inference.

    Masks are baked in. Convolutions and other layers stay as they are, because torch uses such tensors in linear layers only.

    Args:
        model: on a CUDA device of compute capability 8 or more, in float16, bfloat16 or int8.

    Raises:
        InputError: no such device, or no layer can be packed; the message says why the first one cannot.
    """
    return semi_structured_(deep_copy(model))


def semi_structured_(model: Model) -> Model:
    """The model whose 2:4 linear layers have semi-structured tensors for weights, changed in place.

    For inference; see `semi_structured`.

    Raises:
        InputError: no weight can be packed, or one that could is not on a CUDA device.
    """
    execute_dense_(model)
    linear = {name: m for name, m in model.named_modules() if type(m) is nn.Linear and _is_sparse(m)}
    reasons = {name: unpackable(_masked(m)) for name, m in linear.items()}
    able = [name for name, reason in reasons.items() if not reason]
    if not able:
        first = next(
            ((n, r) for n, r in reasons.items()), ("the model", "the model has no sparse linear layer")
        )
        raise InputError(f"nothing can be packed: {first[0]}: {first[1]}.")
    if any(linear[name].weight.device.type != "cuda" for name in able):
        raise InputError(
            "semi-structured tensors need a CUDA device of compute capability 8 or more; move the model there "
            "first, or use iftplan.nn.condense, which runs anywhere."
        )
    for name in able:
        module = linear[name]
        module.weight = nn.Parameter(
            torch.sparse.to_sparse_semi_structured(_masked(module)), requires_grad=False
        )
        module._buffers.pop("weight" + SUFFIX, None)
    return model


@check_arguments
def unpackable(weight: Tensor) -> str:
    """Reason why a weight (outputs, inputs) cannot be packed as 2:4; empty if it can."""
    if weight.dtype not in _MULTIPLES:
        return (
            f"weights are {str(weight.dtype).removeprefix('torch.')}, but 2:4 needs float16, bfloat16 or int8 (in "
            "float32, torch keeps 1 of 2)"
        )
    outputs, inputs = weight.shape
    rows, columns = _MULTIPLES[weight.dtype]
    if outputs % rows or inputs % columns:
        return f"{outputs} outputs and {inputs} inputs are not multiples of {rows} and {columns}"
    groups = (weight != 0).view(outputs, -1, 4).sum(2)
    return "" if int(groups.max()) <= 2 else "a group of four inputs keeps more than two weights"


def _masked(module: nn.Linear) -> Tensor:
    mask = module._buffers.get("weight" + SUFFIX)
    weight = module.weight.detach()
    return weight if mask is None else weight * mask


def _is_sparse(module: nn.Linear) -> bool:
    return bool((_masked(module) == 0).any())
