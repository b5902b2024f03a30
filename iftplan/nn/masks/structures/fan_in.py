"""Masks under which every neuron keeps equally many inputs: a row for every neuron."""

from __future__ import annotations

from collections.abc import Callable

from torch import Generator, Tensor

from iftplan.masks.structures.fan_in import ConstantFanIn
from iftplan.nn.masks.rows import Groups
from iftplan.nn.masks.structured import RowMasks, Shape
from iftplan.nn.masks.subsets import subset_of_each


class FanInMasks(RowMasks[ConstantFanIn]):
    """Masks that keep so many inputs of every output."""

    __slots__ = ()

    def layout(self, experts: int = 1) -> Groups:
        """Layout with a row for every neuron."""
        return Groups()

    def draw(self, shape: Shape, nnz: int, generator: Generator) -> Tensor:
        """Random boolean matrix that keeps equally many inputs of every neuron.

        Args:
            shape: (outputs, inputs).
            nnz: a count of the structure.
            generator: of the random numbers.
        """
        outputs, inputs = shape
        return subset_of_each(outputs, inputs, nnz // outputs, generator)

    def ablated(self, rows: Callable[[], Tensor]) -> bool:
        """Whether some neurons have no weight left, and all others equally many, as SRigL leaves them."""
        counts = rows().sum(1)
        return bool((counts[counts > 0] == counts.max()).all())
