"""Interface of a mask structure on tensors, boolean matrices (outputs, inputs)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Generator, Tensor

from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure
from iftplan.nn.masks.rows import Layout
from iftplan.nn.masks.subsets import subset, subset_of_each
from iftplan.nn.masks.tiles import Solver
from iftplan.nn.masks.top_k import top_k_mask

S = TypeVar("S", bound=MaskStructure)
Shape = tuple[int, int]
"""(outputs, inputs) of one weight matrix."""


@dataclass(frozen=True, slots=True)
class Masks(ABC, Generic[S]):
    """Masks of one structure as tensors: drawn, chosen, checked, and in the rows that methods move weights in.

    Counts that are asked for are those of the structure: whoever calls has held them against `structure.counts`.

    Attributes:
        structure: what the masks look like.
    """

    structure: S

    @abstractmethod
    def draw(self, shape: Shape, nnz: int, generator: Generator) -> Tensor:
        """Random boolean matrix of `shape` with exactly `nnz` true entries.

        Args:
            shape: (outputs, inputs).
            nnz: a count of the structure.
            generator: of the random numbers.
        """

    @abstractmethod
    def best(self, scores: Tensor, nnz: int, solver: Solver) -> Tensor:
        """Boolean matrix with `nnz` true entries that keeps the largest sum of scores; ties to the lowest index.

        Args:
            scores: (outputs, inputs), not negative.
            nnz: a count of the structure.
            solver: of structures whose best mask is hard to find: "fast" or "exact".
        """

    @abstractmethod
    def holds(self, mask: Tensor) -> bool:
        """Whether a matrix with one of the structure's counts is one of its masks."""

    def layout(self, experts: int = 1) -> Layout:
        """Layout in rows of units, of which every row keeps equally many.

        Args:
            experts: matrices of a stack, one's outputs after the other's; all are chosen alike.

        Raises:
            InputError: masks are not chosen row by row.
        """
        raise InputError(
            f"masks of structure {self.structure} cannot be chosen row by row, as this method does; train them "
            "with static, ste or srste."
        )

    def ablated(self, rows: Callable[[], Tensor]) -> bool:
        """Whether units that are kept, (rows, units), are a mask in training of which some rows were given up; asked for where it may be."""
        return False


class RowMasks(Masks[S]):
    """Masks that are any choice of equally many units of every row: a layout is all that there is to say."""

    __slots__ = ()

    @abstractmethod
    def layout(self, experts: int = 1) -> Layout:
        """Layout in rows of units, of which every row keeps equally many."""

    def draw(self, shape: Shape, nnz: int, generator: Generator) -> Tensor:
        """Random boolean matrix that keeps equally many units of every row.

        Args:
            shape: (outputs, inputs).
            nnz: a count of the structure.
            generator: of the random numbers.
        """
        layout, like = self.layout(), torch.empty(shape, device="meta")
        rows, units = layout.rows(like).shape
        kept = layout.units(nnz, like)
        if rows == 1:
            return layout.mask(subset(units, kept, generator).view(1, -1), like)
        return layout.mask(subset_of_each(rows, units, kept, generator), like)

    def best(self, scores: Tensor, nnz: int, solver: Solver) -> Tensor:
        """Boolean matrix that keeps the largest units of every row.

        Args:
            scores: (outputs, inputs), not negative.
            nnz: a count of the structure.
            solver: looked at by no such structure.
        """
        layout = self.layout()
        return layout.mask(top_k_mask(layout.rows(scores), layout.units(nnz, scores)), scores)

    def holds(self, mask: Tensor) -> bool:
        """Whether units are whole or not there at all, and in every row equally many."""
        layout = self.layout()
        kept = layout.rows(mask.to(torch.float32)) > 0
        counts = kept.sum(1)
        return torch.equal(layout.mask(kept, mask), mask) and bool((counts == counts[:1]).all())
