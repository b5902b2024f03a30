"""One masked weight seen through its structure: rows of units, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.masks import MaskStructure, Matrices, Unstructured
from iftplan.nn.masks.checking import holds
from iftplan.nn.masks.masked_weights import MaskedWeight, from_matrix, to_matrix
from iftplan.nn.masks.rows import Flat, Layout, Whole
from iftplan.nn.masks.shards import as_seen, is_sharded, local, of_parts, true_counts
from iftplan.nn.masks.spread import Spread
from iftplan.nn.masks.structures import masks_of


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A weight, and the layout in which its mask is chosen."""

    weight: MaskedWeight
    layout: Layout
    structure: MaskStructure = Unstructured()  # noqa: RUF009  (a frozen value)
    short: int = 0

    def seen(self, tensor: Tensor) -> Tensor:
        """Part of a tensor of the weight's shape that an update sees: this process' where the mask is sharded, else all."""
        return as_seen(tensor.detach(), self.weight.mask)

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor that an update sees as (rows, units): sums where a unit is more than one weight."""
        return self.layout.rows(self._matrix(tensor))

    def whole(self, rows: Tensor) -> Tensor:
        """A choice of units as a mask of the weight's shape, sharded where the mask is."""
        if is_sharded(self.weight.mask):
            return of_parts(rows.view(local(self.weight.mask).shape), self.weight.mask)
        matrix = self.layout.mask(rows, self._matrix(self.weight.mask))
        return matrix if isinstance(self.layout, Flat) else from_matrix(matrix, self.weight)

    def mask_rows(self) -> Tensor:
        """Units that are kept now, a boolean tensor (rows, units)."""
        return self.rows(self.seen(self.weight.mask).to(torch.float32)) > 0

    def spread(self) -> Spread | None:
        """The part of the weight that an update sees here; None where it sees all."""
        return Spread.of(self.weight.mask) if is_sharded(self.weight.mask) else None

    def target(self) -> int:
        """Number of units that each row of the present mask keeps."""
        return self.layout.units(true_counts([self.weight.mask])[0], self._matrix(self.weight.mask))

    def weights(self, units: int) -> int:
        """Number of weights that a mask keeps with so many units in each row."""
        rows = self.mask_rows()
        short = self.short if units == self.target() else 0
        return (units * rows.shape[0] - short) * self.weight.mask.numel() // rows.numel()

    def holds(self) -> bool:
        """Whether the present mask is one of the structure's."""
        if not _evenly_kept(self.weight):
            return False
        return isinstance(self.layout, Flat) or all(
            holds(self.structure, matrix) for matrix in _experts(self.weight)
        )

    def _matrix(self, tensor: Tensor) -> Tensor:
        # the order of weights is nothing to an unstructured mask
        return tensor if isinstance(self.layout, Flat) else to_matrix(tensor, self.weight)


def view_of(weight: MaskedWeight, structure: MaskStructure) -> View:
    """A weight in the layout of its structure.

    Depthwise layers of a widened model are masked without structure, because their counts follow from their
    neighbours (`iftplan.nn.masks.masked_weights.draw_masks_`).

    Raises:
        InputError: the weight's mask is not of that structure, or the structure cannot be chosen row by row.
    """
    if is_sharded(weight.mask):
        return _spread_view(weight, structure)
    masks = masks_of(structure)
    view = View(weight, masks.layout(weight.experts), structure)
    if view.holds() or masks.ablated(view.mask_rows):
        _check_edges(weight, structure)
        kept = int(weight.mask.count_nonzero())
        return replace(view, short=structure.short(_shape(weight) * weight.experts, kept))
    if _is_depthwise(weight.module):
        return View(weight, Flat())
    raise _other(weight, structure)


def _spread_view(weight: MaskedWeight, structure: MaskStructure) -> View:
    if not isinstance(structure, Unstructured) or weight.experts > 1:
        kind = f"the experts of {weight.name}" if weight.experts > 1 else f"{structure} masks"
        raise InputError(
            f"{kind} are chosen row by row in whole matrices, which no process has here; keep masks whole, without shard_masks_, or plan unstructured masks of single matrices."
        )
    return View(weight, Flat(), structure)


def _shape(weight: MaskedWeight) -> Matrices:
    """Of one expert, where the weight stacks several."""
    outputs, inputs = _experts(weight)[0].shape
    return ((inputs, outputs),)


def _experts(weight: MaskedWeight) -> tuple[Tensor, ...]:
    """The mask's matrix, or those of a stack."""
    return to_matrix(weight.mask, weight).chunk(weight.experts)


def _evenly_kept(weight: MaskedWeight) -> bool:
    """Whether all experts keep equally many weights; a single matrix always does."""
    return len({int(matrix.count_nonzero()) for matrix in _experts(weight)}) == 1


def _check_edges(weight: MaskedWeight, structure: MaskStructure) -> None:
    """Rows of units are alike, so nothing may hang over the edge."""
    ((inputs, outputs),) = _shape(weight)
    of_inputs, of_outputs = structure.pattern
    if inputs % of_inputs or outputs % of_outputs:
        raise InputError(
            f"{weight.name}: with {inputs} inputs and {outputs} outputs, {structure} leaves a remainder, but this "
            "method moves weights only between whole patterns; use static, ste or srste, or widths without a "
            "remainder."
        )


def resumed_view(weight: MaskedWeight, structure: MaskStructure, short: int | None, *, whole: bool) -> View:
    """A weight in the layout that it had when its training began; its mask may be any that a schedule goes through.

    Args:
        weight: of a run that goes on.
        structure: of the masks that the run ends on.
        short: units that the mask has fewer in the end than its rows say (`View.short`); None where the weight was masked without structure.
        whole: whether the mask is chosen as one matrix (`matrix_view`), not row by row.

    Raises:
        InputError: the structure cannot be chosen row by row.
    """
    if is_sharded(weight.mask):
        return _spread_view(weight, structure)
    if short is None:
        return View(weight, Whole() if whole else Flat())
    return View(weight, Whole() if whole else masks_of(structure).layout(weight.experts), structure, short)


def is_of(structure: MaskStructure, weight: MaskedWeight) -> bool:
    """Whether a weight's mask is one of the structure, its neurons ablated or not.

    Args:
        structure: what the mask may look like.
        weight: with a mask that has values.
    """
    if not _evenly_kept(weight):
        return False
    if isinstance(structure, Unstructured) or all(holds(structure, matrix) for matrix in _experts(weight)):
        return True
    masks = masks_of(structure)
    try:
        layout = masks.layout(weight.experts)
    except InputError:  # no algorithm chooses it row by row, so none gives up a row
        return False
    return masks.ablated(View(weight, layout, structure).mask_rows)


def matrix_view(weight: MaskedWeight, structure: MaskStructure) -> View:
    """A weight as a whole matrix, for algorithms that choose its mask anew; its count must be one of the structure's.

    Raises:
        InputError: the structure has no mask with the weight's count.
    """
    nnz = int(weight.mask.count_nonzero()) // weight.experts
    try:
        fits = structure.close(_shape(weight), nnz) == nnz and _evenly_kept(weight)
    except InfeasibleError:
        fits = False
    if fits:
        return View(weight, Whole(), structure)
    if _is_depthwise(weight.module):
        return View(weight, Whole())
    raise _other(weight, structure)


def _other(weight: MaskedWeight, structure: MaskStructure) -> InputError:
    if not _evenly_kept(weight):
        return InputError(
            f"the experts of {weight.name} keep different numbers of weights, so the cost of a step depends on "
            "where the router sends each row; apply a plan, which gives all experts the same number."
        )
    return InputError(
        f"the mask of {weight.name} is not a {structure} mask; give the structure of the plan that was applied, `structure=plan.mask`."
    )


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1
