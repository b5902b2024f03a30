"""AdamS, the optimizer of CAST (Huang et al., arXiv 2509.25996, algorithm 1): Adam whose second moment follows the first.

The decay of masked weights is averaged with the momentum after it was updated, so that no history smooths it, and before the
second moment, so that every weight that only decays moves at the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from iftplan.nn.masks.shards import local


class AdamS(Optimizer):
    """Optimizer with steps η·μ̂/(√v̂ + ε), where μ̃ = (1-α)·μ + α·λ·sign(θ) off the masks, else μ, and v averages μ̃².

    Args:
        params: parameters, or groups of them with their own `weight_decay`.
        lr: learning rate η.
        betas: decays of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: of all weights, apart from the gradient as in AdamW; the paper has none.

    Attributes:
        shrinking: for the next step: parameter → where this process' part of it is off its mask, α and λ; `Masking` with `CAST` sets them.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.shrinking: Mapping[Tensor, tuple[Tensor, float, float]] = {}

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

    def _move_(self, parameter: Tensor, moved: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["step"] += 1
        (first, second), step = group["betas"], state["step"]
        weight, gradient = local(parameter.detach()), local(moved)
        mean = local(state["exp_avg"]).lerp_(gradient, 1 - first)
        if parameter in self.shrinking:
            off, part, pull = self.shrinking[parameter]
            mean = torch.where(off, shrunk(mean, weight, part, pull), mean)
        square = local(state["exp_avg_sq"]).mul_(second).addcmul_(mean, mean, value=1 - second)
        root = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        if group["weight_decay"]:
            weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_((mean / (1 - first**step)).div_(root), alpha=group["lr"])


def shrunk(moved: Tensor, weight: Tensor, part: float, pull: float) -> Tensor:
    """Average (1-α)·m + α·λ·sign(θ) (CAST, arXiv 2509.25996, equation 8).

    Args:
        moved: m, a momentum or a gradient.
        weight: θ.
        part: α.
        pull: λ.

    Example:
        >>> shrunk(torch.tensor([1.0, 1.0]), torch.tensor([2.0, -4.0]), 0.25, 0.5).tolist()
        [0.875, 0.625]
    """
    return moved * (1 - part) + torch.sign(weight) * (part * pull)
