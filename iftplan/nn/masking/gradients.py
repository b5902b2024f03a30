"""Gradients held at zero off the masks, at the price of one multiplication for each.

A multiplication by numbers is several times cheaper than filling by booleans, so masks are kept once more in
the gradients' type; a mask that changed, or was loaded, is seen by its version and converted again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iftplan.nn.masks import MaskedWeight


class MaskFactors:
    """The masks of a model as factors of its gradients."""

    def __init__(self, weights: Sequence[MaskedWeight]) -> None:
        self._weights = tuple(weights)
        self._factors: dict[str, tuple[Tensor, int, Tensor]] = {}

    @torch.no_grad()
    def apply_(self) -> None:
        """Multiply every gradient by its mask, in place; weights without a gradient are passed over."""
        found = [(w, g) for w in self._weights if (g := w.parameter.grad) is not None]
        if found:
            torch._foreach_mul_([g for _, g in found], [self._factor(w, g) for w, g in found])

    def _factor(self, weight: MaskedWeight, gradient: Tensor) -> Tensor:
        mask = weight.mask
        known = self._factors.get(weight.name)
        if known is not None and known[0] is mask and known[1] == mask._version:
            factor = known[2]
            if factor.dtype == gradient.dtype and factor.device == gradient.device:
                return factor
        factor = torch.empty_like(gradient).copy_(mask)
        self._factors[weight.name] = mask, mask._version, factor
        return factor
