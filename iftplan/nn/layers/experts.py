"""Experts whose matrices can be replaced: transformers' experts interface with a module for each of their products.

There, one module holds all experts of a mixture as weights of three dimensions and reads them by itself, so that nothing
could stand in the place of one of them. `RoutedExperts` computes the same with parts: up (and gate), activation, down.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iftplan.base.errors import InfeasibleError
from iftplan.nn.layers.branches import Doped, Factorized, Parallel
from iftplan.nn.layers.stacks import StackedLinear, grouped_product

_DECLARED = ("has_gate", "has_bias", "is_transposed", "is_concatenated")  # by use_experts_implementation


def routable(module: nn.Module) -> bool:
    """Whether a module's experts can be computed by `RoutedExperts`: it declares transformers' experts interface."""
    declared = all(name in module.__dict__ for name in _DECLARED)
    return declared and all(name in module._parameters for name in _products(module))


def _products(module: nn.Module) -> tuple[str, str]:
    return ("gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"), "down_proj"


class RoutedExperts(nn.Module):
    """Replacement of a module of transformers' experts interface.

    Parameters keep their names until members take their places.

    Args:
        host: the module; its parameters are taken out of it, its gate and its activation stay in use.
    """

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        self.num_experts = int(host.num_experts)  # type: ignore[arg-type]
        self.up, self.down = _products(host)
        self.is_transposed = bool(host.is_transposed)
        for name, parameter in list(host._parameters.items()):
            self.register_parameter(name, parameter)
            del host._parameters[name]
        self.host = host

    def layer(self, name: str) -> StackedLinear:
        """A product as a layer that members can replace; its shape counts, its values do not."""
        weight = self._parameters[name]
        assert weight is not None
        first, second = weight.shape[1:]
        inputs, outputs = (first, second) if self.is_transposed else (second, first)
        bias = self._parameters.get(f"{name}_bias") is not None
        return StackedLinear(
            self.num_experts, inputs, outputs, bias, device=weight.device, dtype=weight.dtype
        )

    def replace_(self, name: str, part: nn.Module) -> None:
        """Compute a product with a part from now on."""
        for parameter in (name, f"{name}_bias"):
            self._parameters.pop(parameter, None)
        self.add_module(name, part)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Outputs of the experts that the router chose for each token, weighted and summed: (tokens, hidden).

        Args:
            hidden_states: (tokens, hidden).
            top_k_index: (tokens, k), the experts that the router chose.
            top_k_weights: (tokens, k), the router's weights of them.

        Raises:
            InfeasibleError: the experts are spread over devices.
        """
        host: Any = self.host
        if getattr(host, "_is_expert_parallel", False):
            raise InfeasibleError(
                "experts that are distributed over devices cannot have branches or factors; apply the plan before "
                "distributing them, or use the family wide."
            )
        tokens, chosen = top_k_index.shape
        owners, order = torch.sort(top_k_index.reshape(-1))
        rows = hidden_states[order // chosen]
        ends = torch.searchsorted(
            owners, torch.arange(self.num_experts, device=owners.device), right=True, out_int32=True
        )
        inside = self._product(self.up, rows, owners, ends)
        inside = host._apply_gate(inside) if host.has_gate else host.act_fn(inside)
        out = self._product(self.down, inside, owners, ends)
        if getattr(host, "has_post_expert_norm", False):
            out = host.post_expert_norm(out)
        weighted = out * top_k_weights.reshape(-1)[order].unsqueeze(-1)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        summed = weighted[back].view(tokens, chosen, -1).sum(dim=1)
        return summed.to(hidden_states.dtype)

    def _product(self, name: str, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:
        part = self._modules.get(name)
        if part is not None:
            out: Tensor = part(rows, owners, ends)
            return out
        weight, bias = self._parameters[name], self._parameters.get(f"{name}_bias")
        assert weight is not None
        out = grouped_product(rows, weight if self.is_transposed else weight.mT, ends)
        return out if bias is None else out + bias[owners]


class StackedParallel(Parallel):
    """Parallel member `Σ σ(branch(x))` in every expert."""

    def forward(self, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:  # type: ignore[override]
        """Sum of the branches' outputs, (rows, outputs).

        Args:
            rows: (rows, inputs), those of the first expert first.
            owners: the expert of each row.
            ends: where the rows of each expert end.
        """
        total: Tensor = self.nonlinearities[0](self.branches[0](rows, owners, ends))
        for branch, nonlinearity in zip(self.branches[1:], self.nonlinearities[1:], strict=True):
            total = total + nonlinearity(branch(rows, owners, ends))
        return total


class StackedFactorized(Factorized):
    """Factorized member `V(σ(U(x)))` in every expert."""

    def forward(self, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:  # type: ignore[override]
        """Outputs of both factors with the non-linearity between them, (rows, outputs).

        Args:
            rows: (rows, inputs), those of the first expert first.
            owners: the expert of each row.
            ends: where the rows of each expert end.
        """
        out: Tensor = self.V(self.nonlinearity(self.U(rows, owners, ends)), owners, ends)
        return out


class StackedDoped(Doped):
    """Doped member `sparse(x) + V(σ(U(x)))` in every expert."""

    def forward(self, rows: Tensor, owners: Tensor, ends: Tensor) -> Tensor:  # type: ignore[override]
        """Outputs of the masked layers plus those of the low-rank path, (rows, outputs).

        Args:
            rows: (rows, inputs), those of the first expert first.
            owners: the expert of each row.
            ends: where the rows of each expert end.
        """
        beside = self.V(self.nonlinearity(self.U(rows, owners, ends)), owners, ends)
        out: Tensor = self.sparse(rows, owners, ends) + beside
        return out
