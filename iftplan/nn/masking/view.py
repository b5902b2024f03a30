"""One masked weight seen through its structure: rows of units, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iftplan.errors import InputError
from iftplan.masks import MaskStructure
from iftplan.nn.masking.layouts import Flat, Layout, layout_of
from iftplan.nn.masks import MaskedWeight, from_matrix, to_matrix


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A weight, and the layout in which its mask is chosen."""

    weight: MaskedWeight
    layout: Layout

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as (rows, units): sums where a unit is more than one weight."""
        return self.layout.rows(self._matrix(tensor))

    def whole(self, rows: Tensor) -> Tensor:
        """A choice of units as a mask of the weight's shape."""
        matrix = self.layout.mask(rows, self._matrix(self.weight.mask))
        return matrix if isinstance(self.layout, Flat) else from_matrix(matrix, self.weight)

    def mask_rows(self) -> Tensor:
        """Which units are kept now."""
        return self.rows(self.weight.mask.to(torch.float32)) > 0

    def target(self) -> int:
        """How many units each row of the present mask keeps."""
        return self.layout.units(int(self.weight.mask.count_nonzero()), self._matrix(self.weight.mask))

    def weights(self, units: int) -> int:
        """How many weights a mask keeps with so many units in each row."""
        rows = self.mask_rows()
        return units * rows.shape[0] * self.weight.mask.numel() // rows.numel()

    def holds(self) -> bool:
        """Whether the present mask has the layout's form: whole units, equally many in each row."""
        rows = self.mask_rows()
        counts = rows.sum(1)
        return bool((counts == counts[:1]).all()) and torch.equal(self.whole(rows), self.weight.mask)

    def _matrix(self, tensor: Tensor) -> Tensor:
        # the order of weights is nothing to an unstructured mask
        return tensor if isinstance(self.layout, Flat) else to_matrix(tensor, self.weight)


def view_of(weight: MaskedWeight, structure: MaskStructure) -> View:
    """A weight in the layout of its structure.

    Depthwise layers of a widened model are masked without structure, because their counts follow from their
    neighbours (`iftplan.nn.masks.draw_masks_`).

    Raises:
        InputError: the weight's mask is not of that structure, or the structure cannot be chosen row by row.
    """
    view = View(weight, layout_of(structure))
    try:
        holds = view.holds()
    except RuntimeError:  # torch's word for a shape that does not divide
        holds = False
    if holds:
        return view
    if _is_depthwise(weight.module):
        return View(weight, Flat())
    raise InputError(
        f"the mask of {weight.name} is not a {structure} mask; give the structure of the plan that was applied, `structure=plan.mask`."
    )


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1
