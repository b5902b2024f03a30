"""A sparse weight as it stands in a file: which of its entries are kept, and their values."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final, NotRequired

import torch
from pydantic import ConfigDict, with_config
from torch import Tensor
from typing_extensions import TypedDict

from iftplan.base.errors import InputError
from iftplan.masks import MaskStructure, Unstructured, parse_mask
from iftplan.nn.execution.rounding import quantized
from iftplan.nn.export.sparse_files.codes import Code, decode, kept_of_each, smallest_code
from iftplan.nn.masks.masked_weights import MaskedWeight, WeightMatrix, matrix_of
from iftplan.nn.masks.rows import Layout
from iftplan.nn.masks.structures import masks_of

WEIGHT: Final = "weight"
"""Unit of a code that knows single weights, in the order of the weight's own entries."""


@with_config(ConfigDict(extra="forbid"))
class WeightObject(TypedDict):
    """One sparse weight of a file.

    Attributes:
        shape: of the weight.
        dtype: in which the model has it; its values may be stored in a smaller one.
        masked: names under which it has a mask beside it; none for a plain weight with zeros.
        structure: of the mask, in the notation of plans.
        unit: what the code chooses: `weight`, or the units of a structure, such as `block4x4`.
        code: `bits`, `gaps` or `ranks`.
        rows: of units.
        size: units of a row.
        kept: of each row, for `ranks`.
        experts: matrices that the weight stacks.
        split: shape of the weight with its groups apart.
        order: of the axes of `split` in the matrix (outputs, inputs).
        outputs: rows of that matrix.
    """

    shape: list[int]
    dtype: str
    masked: list[str]
    structure: str
    unit: str
    code: Code
    rows: int
    size: int
    kept: NotRequired[int]
    experts: int
    split: list[int]
    order: list[int]
    outputs: int


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """Kept entries of a weight, as a file has them.

    Attributes:
        mask: boolean, of the weight's shape.
        values: kept ones, in the order of the weight's own entries.
        scales: what `values` are multiplied with, one for each output; None where they are the weights themselves.
        dtype: of the weight in its model.
        structure: that the mask was made in.
        masked: names under which the model has a mask beside it; none for a plain weight with zeros.
        experts: matrices that the weight stacks.
        matrix: how the weight lies as one.
    """

    mask: Tensor
    values: Tensor
    scales: Tensor | None
    dtype: torch.dtype
    structure: MaskStructure
    masked: tuple[str, ...]
    experts: int
    matrix: WeightMatrix

    def kept(self) -> Tensor:
        """Kept weights in the type of the model, in the order of the weight's own entries."""
        if self.scales is None:
            return self.values.to(self.dtype)
        return (self.values.float() * self.scales[output_of_each(self.mask, self.matrix)]).to(self.dtype)

    def dense(self) -> Tensor:
        """The weight with its zeros."""
        return torch.zeros(self.mask.shape, dtype=self.dtype).masked_scatter_(self.mask, self.kept())


def stored_weight(
    weight: MaskedWeight,
    tensor: Tensor,
    mask: Tensor | None,
    masked: tuple[str, ...],
    dtype: torch.dtype | None,
) -> StoredWeight:
    """A weight as it goes into a file.

    Args:
        weight: of the model.
        tensor: its values.
        mask: of it; None to take what is not zero.
        masked: names under which the mask is beside it.
        dtype: of the stored values; None for the weight's own, int8 with a scale for each output.
    """
    tensor = tensor.detach().cpu()
    # a negative zero is kept, so that what is loaded is the same to the bit
    chosen = (tensor != 0) | tensor.signbit() if mask is None else mask.cpu()
    matrix, values, scales = matrix_of(weight), tensor[chosen], None
    if dtype is torch.int8:
        values, scales = quantized(values, output_of_each(chosen, matrix), matrix.rows)
    elif dtype is not None:
        values = values.to(dtype)
    return StoredWeight(
        chosen, values, scales, tensor.dtype, weight.structure, masked, weight.experts, matrix
    )


def output_of_each(mask: Tensor, matrix: WeightMatrix) -> Tensor:
    """Output (row of the matrix) of each kept weight, in the order of the weight's own entries."""
    rows = torch.arange(matrix.rows, dtype=torch.int32).view(-1, 1)
    of_each: Tensor = matrix.tensor(rows.expand(-1, mask.numel() // matrix.rows))[mask]
    return of_each.long()


def encoded(stored: StoredWeight) -> tuple[WeightObject, Tensor]:
    """Entry of a weight in the metadata of a file, and the code of its mask in the fewest bytes."""
    mask, matrix, structure = stored.mask, stored.matrix, stored.structure
    units, unit = mask.reshape(stored.experts, -1), WEIGHT
    if (layout := _layout(structure, stored.experts, matrix.rows, mask.numel())) is not None:
        entries = matrix.matrix(mask)
        chosen = layout.rows(entries) > 0
        if torch.equal(layout.mask(chosen, entries), entries):
            units, unit = chosen, str(structure)
    code, content = smallest_code(units.contiguous())
    found: WeightObject = {
        "shape": list(mask.shape),
        "dtype": str(stored.dtype).removeprefix("torch."),
        "masked": list(stored.masked),
        "structure": str(structure),
        "unit": unit,
        "code": code,
        "rows": units.shape[0],
        "size": units.shape[1],
        "experts": stored.experts,
        "split": list(matrix.split),
        "order": list(matrix.order),
        "outputs": matrix.rows,
    }
    if code == "ranks":
        found["kept"] = kept_of_each(units) or 0
    return found, content


def decoded(
    entry: WeightObject, content: Tensor, values: Tensor, scales: Tensor | None, where: str
) -> StoredWeight:
    """The weight that a file describes.

    Args:
        entry: what the header says.
        content: code of the mask.
        values: kept ones.
        scales: of the outputs; None without any.
        where: file and name of the weight, for messages.

    Raises:
        InputError: what the file says of it does not agree.
    """
    try:
        return _decoded(entry, content, values, scales)
    except (ValueError, InputError, MemoryError) as error:
        raise InputError(f"{where} is damaged: {error}; save the file again.") from error


def _decoded(entry: WeightObject, content: Tensor, values: Tensor, scales: Tensor | None) -> StoredWeight:
    shape, rows, size = tuple(entry["shape"]), entry["rows"], entry["size"]
    matrix = WeightMatrix(shape, tuple(entry["split"]), tuple(entry["order"]), entry["outputs"])
    dtype = getattr(torch, entry["dtype"], None)
    counts = (*shape, rows, size, entry["experts"], entry["outputs"], *entry["split"])
    total = prod(shape)
    if not isinstance(dtype, torch.dtype) or min(counts) < 0 or entry["experts"] < 1:
        raise ValueError("its type or a size is impossible")
    if prod(entry["split"]) != total or sorted(entry["order"]) != [*range(len(entry["split"]))]:
        raise ValueError("the axes of its matrix are not those of its shape")
    if total and (not entry["outputs"] or total % entry["outputs"]):
        raise ValueError(f"{entry['outputs']} outputs do not divide its {total} weights")
    if content.dtype is not torch.uint8 or content.dim() != 1 or values.dim() != 1:
        raise ValueError("its values or its mask are not a list")
    structure = parse_mask(entry["structure"])
    layout = None
    if entry["unit"] != WEIGHT:
        layout = _layout(parse_mask(entry["unit"]), entry["experts"], entry["outputs"], total)
        if layout is None:
            raise ValueError(f"its shape has no units of {entry['unit']}")
    if rows * size > total or (layout is None and rows * size != total):
        raise ValueError(f"{rows}×{size} units are not those of {total} weights")
    units = decode(content, entry["code"], rows, size, entry.get("kept"))
    if layout is None:
        mask = units.reshape(shape)
    else:
        like = torch.empty(
            entry["outputs"], total // max(1, entry["outputs"]), dtype=torch.bool, device="meta"
        )
        try:
            chosen = layout.mask(units, like)
        except RuntimeError as error:
            raise ValueError(f"{rows}×{size} units of {entry['unit']} do not make its matrix") from error
        mask = matrix.tensor(chosen).contiguous()
    if len(values) != (nnz := int(mask.sum())):
        raise ValueError(f"its mask keeps {nnz} weights, and {len(values)} values are there")
    if scales is not None and (scales.shape != (entry["outputs"],) or not scales.is_floating_point()):
        raise ValueError(f"{entry['outputs']} outputs need as many scales")
    if scales is None and values.dtype is torch.int8 and dtype is not torch.int8:
        raise ValueError("its values are whole numbers without scales")
    return StoredWeight(
        mask, values, scales, dtype, structure, tuple(entry["masked"]), entry["experts"], matrix
    )


def _layout(structure: MaskStructure, experts: int, outputs: int, total: int) -> Layout | None:
    """Units in which a structure's masks are chosen; None where single weights are all that there is."""
    inputs = total // outputs if outputs else 0
    along_inputs, along_outputs = structure.pattern
    if (
        isinstance(structure, Unstructured)
        or not total
        or inputs % along_inputs
        or (outputs // experts) % along_outputs
        or outputs % experts
    ):
        return None
    try:
        return masks_of(structure).layout(experts)
    except InputError:
        return None
