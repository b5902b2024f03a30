"""Placeholder weight of a replaced layer: it has shape, dtype and device, but no values.

PyTorch's fused encoder layers, and some networks of users, read a child's weight instead of calling the child. A layer
that has become branches, factors or kept values has no such weight. A `Placeholder` tensor tells sizes, dtype and device, and refuses to take part in
anything else. PyTorch's fast paths look for such tensors and then call their children.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from iftplan.base.errors import InfeasibleError
from iftplan.nn.torch_internals import as_plain_tensors, tree_leaves

_ATTRIBUTES: Final = (
    "device", "dtype", "is_cpu", "is_cuda", "is_leaf", "is_meta", "is_mps", "is_nested", "is_quantized", "is_sparse", "is_xpu",
    "itemsize", "layout", "nbytes", "ndim", "requires_grad", "shape",
)  # fmt: skip
_METHODS: Final = (
    "__len__", "dim", "element_size", "is_complex", "is_contiguous", "is_floating_point", "ndimension", "nelement", "numel",
    "size", "stride",
)  # fmt: skip
_ANSWERED: Final = frozenset(
    (*(getattr(Tensor, name).__get__ for name in _ATTRIBUTES), *(getattr(Tensor, name) for name in _METHODS))
)


class Described:
    """Stand-in for `Placeholder` where Dynamo follows Python, which knows no tensors that are made in this way.

    Args:
        shape: of the tensor that is missing.
        like: a tensor of its dtype and device.
        refusal: message of the error when somebody computes with it.
    """

    def __init__(self, shape: Sequence[int], like: Tensor, refusal: str) -> None:
        self.shape, self.refusal = torch.Size(shape), refusal
        self.dtype, self.device, self.requires_grad = like.dtype, like.device, like.requires_grad

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse every function."""
        raise _refused(args, kwargs or {})


class Placeholder(Tensor):
    """A weight or bias that is not there by itself.

    Args:
        shape: of the tensor that is missing.
        like: a tensor of its dtype and device.
        refusal: message of the error when somebody computes with it.
    """

    refusal: str

    @staticmethod
    def __new__(cls, shape: Sequence[int], like: Tensor, refusal: str) -> Placeholder:  # noqa: D102
        made: Placeholder = Tensor._make_wrapper_subclass(
            cls, torch.Size(shape), dtype=like.dtype, device=like.device, requires_grad=like.requires_grad
        )
        made.refusal = refusal
        return made

    def __init__(self, shape: Sequence[int], like: Tensor, refusal: str) -> None:
        pass

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """Size and dtype."""
        return f"Withheld({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer what the tensor is like; refuse everything else."""
        if func in _ANSWERED:
            with as_plain_tensors():
                return func(*args, **(kwargs or {}))
        raise _refused(args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Refuse what comes past `__torch_function__`, as compiled code does."""
        raise _refused(args, kwargs or {})


def placeholder(shape: Sequence[int], like: Tensor, refusal: str) -> Any:
    """A tensor of a shape, with another's dtype and device, that nobody can compute with.

    Args:
        shape: of the layer's own weight or bias.
        like: has its dtype and device, and says whether it is trained.
        refusal: the sentence for whoever computes with it.
    """
    kind = Described if torch.compiler.is_dynamo_compiling() else Placeholder
    return kind(shape, like, refusal)


def _refused(args: Sequence[Any], kwargs: Mapping[str, Any]) -> InfeasibleError:
    leaves = tree_leaves((args, kwargs))
    return InfeasibleError(
        next((x.refusal for x in leaves if isinstance(x, Placeholder | Described)), "no such weight")
    )
