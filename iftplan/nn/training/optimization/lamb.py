"""LAMB (You et al., arXiv 1904.00962, algorithm 2): Adam's step of each tensor, rescaled to the tensor's own norm.

Written here because torch has none and the kept libraries that do (timm, pytorch-optimizer) are large for one rule of
twenty lines. It is NVIDIA's form, which the BERT runs of arXiv 2303.11525 use: tensors without weight decay, biases and
norms, take Adam's step as it is.

Under masks both norms are those of the active weights: everything off a mask is zero, weights, gradients and moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lamb(Optimizer):
    """Optimizer with steps η·(‖θ‖/‖u‖)·u, where u = m̂/(√v̂ + ε) + λ·θ.

    Args:
        params: parameters, or groups of them with their own `weight_decay`.
        lr: learning rate η.
        betas: decays of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: λ; where it is 0, the ratio of norms is 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Loss of the closure, if there is one, before the step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move_(parameter, parameter.grad, group)
        return loss

    def _move_(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        (first, second), step = group["betas"], state["step"]
        mean = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        update = (mean / (1 - first**step)).div_(root)
        if group["weight_decay"]:
            update.add_(parameter, alpha=group["weight_decay"])
            update.mul_(_ratio(parameter, update))
        parameter.sub_(update, alpha=group["lr"])


def _ratio(parameter: Tensor, update: Tensor) -> Tensor:
    """Trust ratio ‖θ‖/‖u‖; 1 where either is zero."""
    own, step = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(update)
    return torch.where((own > 0) & (step > 0), own / step, torch.ones_like(own))
