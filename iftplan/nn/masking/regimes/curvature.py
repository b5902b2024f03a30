"""Weights that are pruned by second derivatives: the step's backward pass keeps its graph, and is differentiated."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, autograd, nn

from iftplan.base.errors import InputError, one_line
from iftplan.nn.masking.regimes.sparse_weights import Held


class Curved(Held):
    """Regime whose update looks at θ·Hg, the product of the loss's Hessian H with its gradient g."""

    def _scored(self) -> dict[str, Tensor | None]:
        names = set(super()._scored())
        views = [view for view in self._subject.views if view.weight.name in names]
        self._check()
        trained = [(p, p.grad) for p in self._trained() if p.grad is not None and p.grad.requires_grad]
        with torch.enable_grad():
            squared = torch.stack([(g * g.detach()).sum() for _, g in trained]).sum()
            found = _differentiated(squared, [view.weight.parameter for view in views])
        return {
            view.weight.name: view.rows(view.weight.parameter.detach() * product)
            for view, product in zip(views, found, strict=True)
        }

    def _trained(self) -> Iterator[nn.Parameter]:
        for group in self._subject.optimizer.param_groups:
            yield from group["params"]

    def _check(self) -> None:
        """Refuse gradients that cannot be differentiated."""
        if self._subject.ranks.count > 1:
            raise InputError(
                "GraSP differentiates gradients, which are averaged over processes without a graph; choose masks in one "
                "process, or take snip, force or synflow."
            )
        for view in self._subject.views:
            gradient = view.weight.parameter.grad
            if gradient is not None and not gradient.requires_grad:
                raise InputError(
                    f"GraSP needs second derivatives in this step, but the gradient of {view.weight.name} has no graph; write `loss.backward(create_graph=masks.wants_graph)`, or take snip, force or synflow."
                )


def _differentiated(value: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Gradients of a value that is made of gradients; zeros where it does not depend on a parameter."""
    try:
        found = autograd.grad(value, parameters, allow_unused=True)
    except RuntimeError as error:
        told = one_line(error)
        raise InputError(
            f"GraSP needs second derivatives, and the model uses an operator that has none ({told}); for attention, compute this step under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, or take snip, force or synflow."
        ) from error
    return [torch.zeros_like(p) if g is None else g.detach() for p, g in zip(parameters, found, strict=True)]
