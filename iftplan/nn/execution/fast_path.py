"""PyTorch's fast path of encoder layers, which reads the weights of the layers inside and never calls them."""

from __future__ import annotations

from torch import nn

from iftplan.nn.execution.layers import SparseLayer

_NESTED = "_nested_with_dense_layers"
"""Attribute that keeps what an encoder was asked for."""


def leave_fast_path_(model: nn.Module) -> None:
    """Have encoder layers call their sparse layers, in place: a layer with a hook is called."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _has_sparse(module):
            _no_hook_(module)
            module.register_forward_pre_hook(_called)
        elif isinstance(module, nn.TransformerEncoder) and _has_sparse(module):
            nested = getattr(module, _NESTED, module.use_nested_tensor)
            setattr(module, _NESTED, nested)
            module.use_nested_tensor = False  # which only the fast path can read


def restore_fast_path_(model: nn.Module) -> None:
    """Undo `leave_fast_path_`, in place."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            _no_hook_(module)
        elif isinstance(module, nn.TransformerEncoder) and hasattr(module, _NESTED):
            module.use_nested_tensor = getattr(module, _NESTED)
            delattr(module, _NESTED)


def _has_sparse(module: nn.Module) -> bool:
    return any(isinstance(inner, SparseLayer) for inner in module.modules())


def _no_hook_(module: nn.Module) -> None:
    for number, hook in list(module._forward_pre_hooks.items()):
        if hook is _called:
            del module._forward_pre_hooks[number]


def _called(module: nn.Module, inputs: object) -> None:
    """A hook that does nothing."""
