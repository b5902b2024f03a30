"""Whether a widened model has outputs of the same shapes as the dense one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from iftplan.base.errors import InfeasibleError, MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn.meta.copies import without_data
from iftplan.nn.reading.widths.check import counts, shape_text
from iftplan.nn.reading.widths.trace import counted_as_assumed


def check_outputs(model: nn.Module, changed: nn.Module, inputs: Sequence[InputSpec]) -> None:
    """Refuse a changed double, without data, that does not run as the model does or answers in other shapes.

    Where data decide a shape, as the number of boxes that a detector finds, it is taken for the same number in both.

    Args:
        model: the network at its dense widths.
        changed: the same network at the plan's widths, on the meta device.
        inputs: what one forward pass takes.

    Raises:
        InfeasibleError: says what changes.
    """
    run = counts
    before = run(without_data(model), inputs)
    try:
        if before.from_data:
            run = counted_as_assumed
            before = run(without_data(model), inputs)
        after = run(changed, inputs)
    except MeasureError as error:
        raise InfeasibleError(f"at the plan's widths the model does not run: {error}") from error
    if before.shapes != after.shapes:
        raise InfeasibleError(
            f"at the plan's widths the model's outputs change from {shape_text(before.shapes)} to "
            f"{shape_text(after.shapes)}; its widths depend on numbers that iftplan could not follow. Use "
            "parallel, factorized or doped, which keep the width."
        )
