"""Exact selection among the parts that processes have of one tensor: what is chosen is what one process would choose.

Every process counts its own scores by their leading bits, and the counts are added up over the processes; three such
rounds find the threshold of float32 scores to the bit. No score is ever sent, and no process sees more than its part.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final, Self

import torch
from torch import Generator, Tensor, distributed

from iftplan.nn.masks.shards import groups_of
from iftplan.nn.torch_internals.blocks import block_of

DIGIT: Final = 11
"""Bits that a round of counting looks at: 2048 counts of 8 bytes are sent."""

_DRAWN: Final = 2**20
_KEYS: Final = {
    torch.float64: (torch.int64, 63),
    torch.float32: (torch.int32, 32),
    torch.float16: (torch.int16, 16),
    torch.bfloat16: (torch.int16, 16),
}


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """Place of this process' part in a tensor that several processes share, flattened into one row.

    Attributes:
        shape: of the whole tensor.
        offsets: index of the part's first entry in each dimension.
        sizes: of the part.
        groups: processes that have other parts, a group for each dimension of the mesh that the tensor is split over.
    """

    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    groups: tuple[Any, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Place of the part of a DTensor."""
        offsets, sizes = block_of(tensor)
        return cls(tuple(tensor.shape), offsets, sizes, groups_of(tensor))

    @property
    def units(self) -> int:
        """Entries of the whole tensor."""
        return prod(self.shape)

    def summed(self, counts: Tensor) -> Tensor:
        """Integers added up over all parts, in place."""
        for group in self.groups:
            distributed.all_reduce(counts, group=group)
        return counts

    def largest(self, scores: Tensor, count: int) -> Tensor:
        """Boolean tensor (1, local entries) that is true for this part of the `count` largest scores of all parts.

        Ties go to the lowest index in the whole tensor, as in `top_k_mask`. A collective of the groups.

        Args:
            scores: of this part, (1, local entries); not negative and not NaN, or -1 for those that come last.
            count: at least 0 and at most `units`.

        Raises:
            ValueError: `count` is negative, or more than there are.
        """
        if not 0 <= count <= self.units:
            raise ValueError(f"{count} of {self.units}")
        if count in (0, self.units):
            return torch.full_like(scores, count > 0, dtype=torch.bool)
        kind, bits = _KEYS[scores.dtype]
        keys = (
            scores.contiguous().view(kind).clamp(min=-1)
        )  # bits of floats that are not negative are in their order
        keys = (keys.to(torch.int32) if kind is torch.int16 else keys).add_(1).flatten()
        threshold, missing, equal = self._threshold(keys, count, bits)
        chosen, ties = keys > threshold, keys == threshold
        if missing < equal:
            lateness = self.units - 1 - self.places(ties.device)[ties]
            last, _, _ = self._threshold(lateness, missing, self.units.bit_length())
            ties[ties.clone()] = lateness >= last
        return (chosen | ties).view(scores.shape)

    def places(self, device: torch.device) -> Tensor:
        """Index in the flattened whole of each local entry, on a device."""
        found, step = torch.zeros((), dtype=torch.int64, device=device), 1
        for dim in reversed(range(len(self.shape))):
            begin = self.offsets[dim]
            along = step * torch.arange(begin, begin + self.sizes[dim], device=device)
            found = found + along.view(-1, *(1,) * (len(self.shape) - 1 - dim))
            step *= self.shape[dim]
        return found.expand(self.sizes).flatten()

    def random(self, generator: Generator) -> Tensor:
        """Part of the numbers that `torch.rand` draws for the whole tensor, (1, local entries); drawn a piece at a time.

        Args:
            generator: in the same state on every process.
        """
        mine, found = self.places(torch.device("cpu")), torch.empty(prod(self.sizes))
        for start in range(0, self.units, _DRAWN):
            piece = torch.rand(min(_DRAWN, self.units - start), generator=generator)
            here = (mine >= start) & (mine < start + len(piece))
            found[here] = piece[mine[here] - start]
        return found.view(1, -1)

    def _threshold(self, keys: Tensor, count: int, bits: int) -> tuple[int, int, int]:
        """The `count`-th largest of all integers, how many equal to it belong to the largest, and how many are equal."""
        found, left, equal = 0, count, 0
        for shift in range((bits - 1) // DIGIT * DIGIT, -1, -DIGIT):
            digits = (keys >> shift) & (2**DIGIT - 1)
            histogram = self.summed(torch.bincount(digits, minlength=2**DIGIT))
            above = histogram.flip(0).cumsum(0)
            place = int(torch.searchsorted(above, left))
            equal = int(histogram[-1 - place])
            left -= int(above[place]) - equal
            digit = len(histogram) - 1 - place
            found, keys = found << DIGIT | digit, keys[digits == digit]
        return found, left, equal
