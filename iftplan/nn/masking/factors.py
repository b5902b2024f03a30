"""Gradients held at zero off the masks, at the price of one multiplication for each.

A multiplication by numbers is several times cheaper than filling by booleans, so masks are kept once more in
the gradients' type; a mask that changed, or was loaded, is seen by its version and converted again. Weights whose layers
are compact have nothing off their masks, and are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from iftplan.base.errors import InputError
from iftplan.nn.masks.masked_weights import MaskedWeight
from iftplan.nn.masks.shards import local, part_of, true_counts


class MaskFactors:
    """The masks of a model as factors of its gradients, and how many weights each keeps."""

    def __init__(self, weights: Sequence[MaskedWeight]) -> None:
        self._weights = tuple(weights)
        self._seen: list[tuple[Tensor, int] | None] = [None] * len(self._weights)
        self._factors: list[Tensor | None] = [None] * len(self._weights)
        self._nnz: Mapping[str, int] = MappingProxyType({})
        self._left: list[int] = []

    @torch.no_grad()
    def apply_(self) -> None:
        """Multiply every gradient by its mask, in place; weights without a gradient are passed over."""
        self._refresh()
        gradients, factors = [], []
        for i, weight in self._dense:
            gradient = weight.parameter.grad
            if gradient is not None:
                gradients.append(local(gradient))
                factors.append(self._factor(i, gradient))
        if gradients:
            torch._foreach_mul_(gradients, factors)

    @torch.no_grad()
    def hold_(self) -> None:
        """Multiply every weight by its mask, in place."""
        self._refresh()
        values = [(i, weight.parameter.detach()) for i, weight in self._dense]
        if values:
            torch._foreach_mul_([local(x) for _, x in values], [self._factor(i, x) for i, x in values])

    @torch.no_grad()
    def holds(self) -> bool:
        """Whether every weight is zero off its mask, as far as this process has it."""
        pairs = ((local(weight.parameter), weight) for _, weight in self._dense)
        return not any(bool((x[~part_of(weight.mask, x)] != 0).any()) for x, weight in pairs)

    def leave(self) -> None:
        """Remember the weights as they are left to the next step."""
        self._left = self._versions

    @property
    def untouched(self) -> bool:
        """Whether nothing has written to the weights since they were left."""
        return self._left == self._versions

    @property
    def nnz(self) -> Mapping[str, int]:
        """Parameter name → weights that its mask keeps; counted again only where a mask has changed."""
        self._refresh()
        return self._nnz

    @property
    def _dense(self) -> list[tuple[int, MaskedWeight]]:
        """Weights that have entries off their masks, and their numbers."""
        return [(i, weight) for i, weight in enumerate(self._weights) if not weight.is_compact]

    @property
    def _versions(self) -> list[int]:
        return [local(weight.parameter)._version for _, weight in self._dense]

    def _refresh(self) -> None:
        """Forget what was made of masks that are not what they were."""
        changed: dict[str, Tensor] = {}
        for i, weight in enumerate(self._weights):
            mask, seen = weight.mask, self._seen[i]
            if seen is None or seen[0] is not mask or seen[1] != mask._version:
                self._seen[i], self._factors[i] = (mask, mask._version), None
                changed[weight.name] = mask
            elif weight.is_compact:
                self._factors[i] = None  # as large as the dense weight
        if changed:
            counts = true_counts(list(changed.values()))
            self._nnz = MappingProxyType({**self._nnz, **dict(zip(changed, counts, strict=True))})

    def _factor(self, i: int, like: Tensor) -> Tensor:
        """The mask in the type, the place and the strides of what it multiplies."""
        known = self._factors[i]
        if known is not None and known.dtype == like.dtype and known.device == like.device:
            return known
        if like.layout != torch.strided:
            raise InputError(
                f"the gradient of {self._weights[i].name} is a sparse tensor, which masks do not support; build the "
                "module with sparse=False, or keep it dense."
            )
        factor = torch.empty_like(local(like)).copy_(part_of(self._weights[i].mask, like))
        self._factors[i] = factor
        return factor
