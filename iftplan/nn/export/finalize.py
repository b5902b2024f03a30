"""Masks baked into the weights, or dropped so that every weight trains."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from iftplan.base.arguments import check_arguments
from iftplan.nn.execution.compaction import expand_
from iftplan.nn.execution.execute import execute_dense_
from iftplan.nn.masks.masked_weights import enforce_, masked_weights, remove_mask_
from iftplan.nn.meta.copies import deep_copy

Model = TypeVar("Model", bound=nn.Module)


@check_arguments
def finalize(model: Model) -> Model:
    """A copy whose masks are baked into its weights: plain parameters with zeros, and no masks."""
    return finalize_(deep_copy(model))


def finalize_(model: Model) -> Model:
    """The model with its masks baked into its weights, changed in place; see `finalize`."""
    enforce_(expand_(model))
    return densify_(model)


@check_arguments
def densify(model: Model) -> Model:
    """A copy without masks, whose zeros can train again, as in dense fine-tuning (SPDF, arXiv 2303.10464)."""
    return densify_(deep_copy(model))


def densify_(model: Model) -> Model:
    """The model without masks and sparse kernels, changed in place; no weight is changed. See `densify`."""
    execute_dense_(expand_(model))
    for weight in list(masked_weights(model)):
        remove_mask_(weight)
    return model
