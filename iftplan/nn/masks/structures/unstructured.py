"""Unstructured masks: one row of all weights."""

from __future__ import annotations

from iftplan.masks.structures.unstructured import Unstructured
from iftplan.nn.masks.rows import Flat
from iftplan.nn.masks.structured import RowMasks


class UnstructuredMasks(RowMasks[Unstructured]):
    """Structure of any set of weights."""

    __slots__ = ()

    def layout(self, experts: int = 1) -> Flat:
        """Layout with one row of all weights."""
        return Flat(experts)
