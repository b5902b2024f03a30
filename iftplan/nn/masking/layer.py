"""One masked weight as algorithms see it: rows of units, and the number that each row keeps in the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Generator, Tensor

from iftplan.masks import MaskStructure, Unstructured
from iftplan.nn.masks.spread import Spread
from iftplan.nn.masks.top_k import first, top_k_mask


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Mask of one weight and the scores that it is chosen by, in the layout of its structure: (rows, units).

    Attributes:
        name: qualified parameter name.
        magnitude: |θ|, summed over a unit.
        gradient: |g| of the dense gradient, or of what else an algorithm asks for of gradients, summed over a unit;
            None if the algorithm does not use it.
        saliency: |θ·g|, or what else an algorithm asks for of weights and gradients, summed over a unit; None likewise.
        mask: which units are kept now.
        target: number of units that each row keeps in the end.
        generator: random numbers of this weight at this step, the same on all ranks.
        structure: what the mask may look like, for algorithms that choose within the whole matrix: their rows are
            its outputs, and their target is the count of the matrix.
        short: how many rows keep one unit fewer than the target in the end: groups of N:M masks that close a budget.
        experts: number of matrices in a stack, whose rows follow each other; every matrix keeps equally many weights.
        cost: MACs of one weight in a forward pass, for algorithms that move counts between layers; 1 without a plan.
        unspent: MACs by which all masks together are below the plan's.
        spread: of which tensors are a part, for weights whose masks are sharded: one row, of which this process has
            some units; None where they are whole.
    """

    name: str
    magnitude: Tensor
    gradient: Tensor | None
    saliency: Tensor | None
    mask: Tensor
    target: int
    generator: Generator
    structure: MaskStructure = Unstructured()  # noqa: RUF009  (a frozen value)
    short: int = 0
    experts: int = 1
    cost: int = 1
    unspent: int = 0
    spread: Spread | None = None

    @property
    def units(self) -> int:
        """Number of units in a row."""
        return self.mask.shape[1] if self.spread is None else self.spread.units

    def counts(self, chosen: Tensor) -> Tensor:
        """Number of chosen units in each row, over all processes that have parts of it."""
        # of one row several times faster than its sum
        own = chosen.count_nonzero().view(1) if len(chosen) == 1 else chosen.sum(1)
        return own if self.spread is None else self.spread.summed(own)

    def best(self, scores: Tensor, count: int) -> Tensor:
        """The `count` largest scores of the weight as a whole, ties to the lowest index, a boolean tensor (rows, units)."""
        if self.spread is not None:
            return self.spread.largest(scores, count)
        return top_k_mask(scores.reshape(1, -1), count).view(scores.shape)

    def first(self, scores: Tensor, counts: Tensor) -> Tensor:
        """The `counts` largest scores of each row, ties to the lowest index, a boolean tensor (rows, units)."""
        return first(scores, counts) if self.spread is None else self.best(scores, max(0, int(counts)))

    def random(self) -> Tensor:
        """Uniform random numbers, (rows, units), the same on every device and for every number of processes."""
        if self.spread is not None:
            return self.spread.random(self.generator).to(self.mask.device)
        return torch.rand(self.mask.shape, generator=self.generator).to(self.mask.device)

    @property
    def active(self) -> int:
        """Number of units that each row keeps now; those that are short keep one fewer."""
        return int(self.mask.sum(1).max()) if len(self.mask) else 0

    def each(self) -> tuple[Self, ...]:
        """Layers of single matrices: the experts one by one, or the layer itself where it is a single matrix.

        For algorithms that choose within the whole matrix: they keep `target` weights of all, not units of every row.

        Each keeps its part of the target.
        """
        if self.experts == 1:
            return (self,)
        parts = zip(self.magnitude.chunk(self.experts), self.mask.chunk(self.experts), strict=True)
        target = self.target // self.experts
        return tuple(replace(self, magnitude=m, mask=k, target=target, experts=1) for m, k in parts)

    def largest(self, scores: Tensor, units: int) -> Tensor:
        """The `units` largest scores of each row; at the target, without the last in those rows that lose least by it."""
        chosen = top_k_mask(scores, units)
        if not self.short or units != self.target:
            return chosen
        last = (
            scores.masked_fill(~chosen, scores.max()).amin(1).view(self.experts, -1)
        )  # excluded ones are lost first
        ranks = last.argsort(dim=1, descending=True, stable=True).argsort(
            dim=1
        )  # however small the losses are
        whole = (ranks < (len(scores) - self.short) // self.experts).view(-1, 1)
        short: Tensor = top_k_mask(scores, units - 1) | (chosen & whole)
        return short


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """New mask of one weight, and what grew in it; both tensors are (rows, units).

    Attributes:
        mask: units that are kept from now on.
        grown: units among them that were chosen to grow, also where they were active just before.
    """

    mask: Tensor
    grown: Tensor
