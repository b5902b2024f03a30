"""Dense weights behind masked ones, for methods that train all weights and compute with some (STE and its kin).

The model's parameter is θ⊙m whenever anyone looks: in forward passes, evaluations, audits, averages and checkpoints.
θ itself is kept here, takes the parameter's place for the time of the optimizer's step, and is in the masks' state.
While D > 0 every weight takes part in the forward pass, as θ⊙(m + D·(1-m)), and the mask beside the parameter is
full: it says what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from iftplan.nn.masking.optimizer.adams import shrunk
from iftplan.nn.masks.masked_weights import MaskedWeight
from iftplan.nn.masks.shards import local, part_of, shard_like, state_of


def leaky_weight(dense: Tensor, chosen: Tensor, leak: float) -> Tensor:
    """Weight θ⊙(m + D·(1-m)) that the forward pass computes with.

    Args:
        dense: θ.
        chosen: m, boolean.
        leak: D, in [0, 1].

    Example:
        >>> leaky_weight(torch.tensor([2.0, 4.0]), torch.tensor([True, False]), 0.25).tolist()
        [2.0, 1.0]
    """
    return torch.where(chosen, dense, dense * leak if leak else 0.0)


def srste_gradient(gradient: Tensor, dense: Tensor, chosen: Tensor, pull: float) -> Tensor:
    """Gradient g + λ·(1-m)⊙θ (SR-STE, arXiv 2102.04010, equation 9).

    Args:
        gradient: g.
        dense: θ.
        chosen: m, boolean.
        pull: λ.

    Example:
        >>> srste_gradient(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 4.0]), torch.tensor([True, False]), 0.5).tolist()
        [1.0, 3.0]
    """
    return torch.where(chosen, gradient, gradient + pull * dense)


def through(gradient: Tensor, chosen: Tensor, leak: float) -> Tensor:
    """Gradient g⊙(m + D·(1-m)) of θ by the chain rule, the mask being a constant.

    Args:
        gradient: g, of the forward weight.
        chosen: m, boolean.
        leak: D, in [0, 1].
    """
    return leaky_weight(gradient, chosen, leak)


def top_kast_gradient(
    gradient: Tensor, dense: Tensor, chosen: Tensor, reached: Tensor, pull: float, density: float
) -> Tensor:
    """Gradient g + λθ on A, g + λθ/D on the rest of B, and 0 outside of B (Top-KAST, arXiv 2106.03517, section 2.3).

    Args:
        gradient: g.
        dense: θ.
        chosen: A, boolean.
        reached: B, boolean.
        pull: λ.
        density: D, of A in the whole weight.

    Example:
        >>> A, B = torch.tensor([True, False, False]), torch.tensor([True, True, False])
        >>> top_kast_gradient(torch.ones(3), torch.tensor([4.0, 2.0, 1.0]), A, B, 0.25, 0.5).tolist()
        [2.0, 2.0, 0.0]
    """
    pulled = gradient + pull * torch.where(chosen, dense, dense / density if density else 0.0)
    return torch.where(reached, pulled, 0.0)


class Latents:
    """θ and m of every masked weight of a model, as far as this process has them.

    Args:
        weights: whose parameters hold θ now.
    """

    def __init__(self, weights: Sequence[MaskedWeight]) -> None:
        self._weights = tuple(weights)
        self._dense = [weight.parameter.detach().clone() for weight in self._weights]
        self._chosen = [weight.mask.clone() for weight in self._weights]
        self._reached: list[Tensor | None] = [None] * len(self._weights)
        self._leak = 0.0

    @torch.no_grad()
    def enter_(self) -> None:
        """Put θ in the parameters' place, for the optimizer."""
        for weight, dense in zip(self._weights, self._dense, strict=True):
            local(weight.parameter.detach()).copy_(local(dense))

    @torch.no_grad()
    def keep_(self) -> None:
        """Take the parameters' present values for θ."""
        for weight, dense in zip(self._weights, self._dense, strict=True):
            local(dense).copy_(local(weight.parameter.detach()))

    @torch.no_grad()
    def spare_(self) -> None:
        """Put θ back into the parameters where it is not trained."""
        for weight, dense, reached in zip(self._weights, self._dense, self._reached, strict=True):
            if reached is not None:
                value, part = local(weight.parameter.detach()), part_of(reached, weight.parameter)
                value.copy_(torch.where(part, value, local(dense)))

    def choose_(self, name: str, chosen: Tensor, reached: Tensor | None = None) -> None:
        """Take whole masks for one weight.

        Args:
            name: of the weight.
            chosen: m.
            reached: where θ is trained; None for everywhere.
        """
        index = next(i for i, weight in enumerate(self._weights) if weight.name == name)
        self._chosen[index], self._reached[index] = chosen, reached

    def reached(self) -> dict[str, Tensor]:
        """Whole masks of where θ is trained, by weight; none where it is trained everywhere."""
        pairs = zip(self._weights, self._reached, strict=True)
        return {weight.name: mask for weight, mask in pairs if mask is not None}

    @torch.no_grad()
    def leave_(self, leak: float) -> None:
        """Write the weights and masks of the next forward pass into the parameters and mask buffers."""
        self._leak = leak
        for weight, dense, chosen in zip(self._weights, self._dense, self._chosen, strict=True):
            part = part_of(chosen, weight.parameter)
            local(weight.parameter.detach()).copy_(leaky_weight(local(dense), part, leak))
            weight.mask.copy_(chosen | (leak > 0))

    @torch.no_grad()
    def correct_(self, *, straight: bool, pull: float) -> None:
        """Make θ's gradients of those of the forward weights, in place; weights without one are passed over."""
        parts = zip(self._weights, self._dense, self._chosen, self._reached, strict=True)
        for weight, dense, chosen, reached in parts:
            if weight.parameter.grad is None:
                continue
            gradient, part = local(weight.parameter.grad), part_of(chosen, weight.parameter)
            if not straight:
                gradient.copy_(through(gradient, part, self._leak))
            if reached is not None:
                around, density = part_of(reached, weight.parameter), float(chosen.double().mean())
                gradient.copy_(top_kast_gradient(gradient, local(dense), part, around, pull, density))
            elif pull:
                gradient.copy_(srste_gradient(gradient, local(dense), part, pull))

    @torch.no_grad()
    def shrink_(self, part: float, decay: float) -> None:
        """Average the gradients of masked weights with an L1 decay, in place; weights without one are passed over.

        Args:
            part: α.
            decay: λ.
        """
        for weight, dense, chosen in zip(self._weights, self._dense, self._chosen, strict=True):
            if weight.parameter.grad is not None:
                gradient, kept = local(weight.parameter.grad), part_of(chosen, weight.parameter)
                gradient.copy_(torch.where(kept, gradient, shrunk(gradient, local(dense), part, decay)))

    def shrinking(self, part: float, decay: float) -> dict[Tensor, tuple[Tensor, float, float]]:
        """Parameter → where it is masked, α and λ, for an optimizer that averages the decay by itself; none if α is 0.

        Args:
            part: α.
            decay: λ.
        """
        if not part:
            return {}
        pairs = zip(self._weights, self._chosen, strict=True)
        return {w.parameter: (part_of(~chosen, w.parameter), part, decay) for w, chosen in pairs}

    def state_dict(self, *, parts: bool = False) -> dict[str, Any]:
        """State of θ and masks, tensors by name; whole unless `parts`, which is a collective where they are sharded."""
        names = [weight.name for weight in self._weights]
        return {
            "dense": dict(zip(names, (state_of(x, parts=parts) for x in self._dense), strict=True)),
            "chosen": dict(zip(names, self._chosen, strict=True)),
            "reached": self.reached(),
            "leak": self._leak,
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; parameters are not touched."""
        for i, weight in enumerate(self._weights):
            value = state["dense"][weight.name].to(self._dense[i].device)
            local(self._dense[i]).copy_(local(shard_like(value, self._dense[i])))
            self._chosen[i] = state["chosen"][weight.name].to(weight.mask.device).clone()
            reached = state.get("reached", {}).get(weight.name)
            self._reached[i] = None if reached is None else reached.to(weight.mask.device).clone()
        self._leak = float(state["leak"])
