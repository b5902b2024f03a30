"""Training whose masked layers are compact between updates of their masks, and dense at them.

Parameters, gradients and the optimizer's state are those of the kept values. An update needs dense weights, as it chooses
among all: layers then become dense, the optimizer's state with them, and compact again under their new masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iftplan.nn.execution.compaction import become_compact_, become_dense_, compactable, spread_values
from iftplan.nn.execution.execute import execute_dense_, execute_sparse_
from iftplan.nn.execution.functions import kept_values
from iftplan.nn.execution.layers import MASK, SparseLayer
from iftplan.nn.execution.sparsity import Pattern
from iftplan.nn.layers.branches import is_conv1d


class Turns:
    """Masked layers of a model in training, compact and dense by turns, and the state of its optimizer with them.

    Masks stay beside the layers in both forms. Gradients are lost at a turn: take it between two steps.

    Args:
        model: masked, on the CPU.
        optimizer: torch's own, one that moves each entry of a weight by itself.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._strides: dict[nn.Module, tuple[int, ...]] = {}
        self._are_compact = False

    @torch.no_grad()
    def compact_(self) -> None:
        """Make the layers compact that can be; others compute as they did."""
        if self._are_compact:
            return
        self._are_compact = True
        execute_dense_(self._model)
        for module in compactable(self._model):
            weight, mask = module._parameters["weight"], module._buffers[MASK]
            assert weight is not None and mask is not None
            self._strides[module] = weight.stride()
            become_compact_(module, mask)
            layer: Any = module

            def gather(slot: Tensor, layer: Any = layer) -> Tensor:
                return kept_values(slot.T if is_conv1d(layer) else slot, layer.pattern)

            self._swap_(weight, layer.values, gather)

    @torch.no_grad()
    def expand_(self) -> None:
        """Make all layers dense, in the order of memory that their weights had, and run them by sparse kernels."""
        if not self._are_compact:
            return
        self._are_compact = False
        packed: dict[nn.Module, Pattern] = {}
        for module, strides in self._strides.items():
            layer: Any = module
            values, pattern = layer.values, layer.pattern
            packed[module] = pattern
            become_dense_(layer)
            layer.weight.data = _lying(layer.weight.data, strides)

            def spread(
                slot: Tensor, pattern: Any = pattern, layer: Any = layer, strides: Any = strides
            ) -> Tensor:
                return _lying(spread_values(slot, pattern, layer), strides)

            self._swap_(values, layer.weight, spread)
        self._strides.clear()
        execute_sparse_(self._model)
        for module, pattern in packed.items():
            cast("SparseLayer", module).holds_(pattern)

    def _swap_(self, old: nn.Parameter, new: nn.Parameter, turned: Callable[[Tensor], Tensor]) -> None:
        """Let the optimizer move another parameter, with the state of the one before."""
        for group in self._optimizer.param_groups:
            group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
        state = self._optimizer.state.pop(old, None)
        if state is not None:
            self._optimizer.state[new] = {
                key: turned(value) if isinstance(value, Tensor) and value.shape == old.shape else value
                for key, value in state.items()
            }


def _lying(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The tensor with other strides in memory."""
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
