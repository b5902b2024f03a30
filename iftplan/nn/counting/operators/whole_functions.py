"""Functions that are contractions by what they say and elementwise work by how PyTorch carries them out.

`vecdot` and `cosine_similarity` sum products over a dimension, but what reaches the dispatcher is a multiplication
and a sum. Modes that see the user's call count them here; a tracer sees the whole operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch

from iftplan.nn.torch_internals import without_transforms

# function → its name in count tables, and the dimension that it sums over if none is given
_WHOLE: Final[Mapping[Any, tuple[str, int]]] = MappingProxyType(
    {torch.linalg.vecdot: ("vecdot", -1), torch.cosine_similarity: ("cosine_similarity", 1)}
)


def is_taken_apart(func: Callable[..., Any]) -> bool:
    """Whether a function is one of these."""
    return func in _WHOLE


def summed_products(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: torch.Tensor
) -> tuple[str, Any, tuple[Any, Any]] | None:
    """Name, MACs and operands of one call; None where the function is none of these, or reaches the dispatcher whole.

    MACs are the elements of the result, under `torch.vmap` those of all samples, times the size of the summed dimension.

    Args:
        func: what was called.
        args: the call's positional arguments.
        kwargs: the call's keyword arguments.
        result: the tensor that the call returned.
    """
    if not is_taken_apart(func):
        return None
    name, default = _WHOLE[func]
    x = args[0] if args else kwargs.get("x", kwargs.get("x1"))
    y = args[1] if len(args) > 1 else kwargs.get("y", kwargs.get("x2"))
    dim = args[2] if len(args) > 2 else kwargs.get("dim", default)
    rank = max(x.dim(), y.dim())
    if name == "vecdot" and rank == 1:  # which is a `vdot`
        return None
    sizes = [t.shape[dim % rank - rank] for t in (x, y) if dim % rank - rank >= -t.dim()]
    macs = next((s for s in sizes if s != 1), 1)
    for size in without_transforms(result).shape:
        macs = macs * size
    return name, macs, (without_transforms(y), without_transforms(x))
