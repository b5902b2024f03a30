"""Sparse and compact forms of transformers' Conv1D, in a file of their own: transformers takes seconds to import."""

from __future__ import annotations

from transformers.pytorch_utils import Conv1D

from iftplan.nn.execution.conv1d import CompactRows, SparseRows

__all__ = ["CompactTransformersConv1D", "Conv1D", "SparseTransformersConv1D"]


class SparseTransformersConv1D(SparseRows, Conv1D):  # type: ignore[misc]  # transformers has no types here
    """Sparse `transformers.pytorch_utils.Conv1D`: keeps a dense weight and computes with its kept values."""


class CompactTransformersConv1D(CompactRows, Conv1D):  # type: ignore[misc]  # as above
    """Compact `transformers.pytorch_utils.Conv1D`, which has nothing but the kept weights."""
