"""Functions that are contractions by what they say and elementwise work by how PyTorch carries them out.

`vecdot` and `cosine_similarity` sum products over a dimension, but what reaches the dispatcher is a multiplication
and a sum. Modes that see the user's call count them here; a tracer sees the whole operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch

# function → its name in count tables, and the dimension that it sums over if none is given
WHOLE: Final[Mapping[Any, tuple[str, int]]] = MappingProxyType(
    {torch.linalg.vecdot: ("vecdot", -1), torch.cosine_similarity: ("cosine_similarity", 1)}
)


def summed_products(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: torch.Tensor
) -> tuple[str, Any, tuple[Any, Any]]:
    """Name, MACs and operands of one call of a function in `WHOLE`.

    MACs are the elements of the result times the size of the summed dimension.

    Args:
        func: a key of `WHOLE`.
        args: the call's positional arguments.
        kwargs: the call's keyword arguments.
        result: the tensor that the call returned.
    """
    name, default = WHOLE[func]
    x = args[0] if args else kwargs.get("x", kwargs.get("x1"))
    y = args[1] if len(args) > 1 else kwargs.get("y", kwargs.get("x2"))
    dim = args[2] if len(args) > 2 else kwargs.get("dim", default)
    rank = max(x.dim(), y.dim())
    sizes = [t.shape[dim % rank - rank] for t in (x, y) if dim % rank - rank >= -t.dim()]
    macs = next((s for s in sizes if s != 1), 1)
    for size in result.shape:
        macs = macs * size
    return name, macs, (y, x)
