"""The linear layer of GPT-2, ours and transformers': its weight is (inputs, outputs), and so is its mask."""

from __future__ import annotations

from torch import Tensor

from iftplan.nn.execution.functions import sparse_linear
from iftplan.nn.execution.layers import CompactLayer, SparseLayer
from iftplan.nn.sources.zoo.conv1d import Conv1D


class SparseRows(SparseLayer):
    """Base of the sparse form of either; stands before the dense class."""

    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Output of the dense layer within rounding, (…, outputs)."""
        if (frozen := self._frozen(x)) is not None:
            return frozen.linear(x, self.weight, self.bias)
        pattern = self._pattern(x)
        if pattern is None:
            dense: Tensor = super().forward(x)
            return dense
        return sparse_linear(x, self.weight.T, self.bias, pattern, dense_gradient=self.dense_gradient)


class CompactRows(CompactLayer):
    """Base of the compact form of either; stands before the dense class."""

    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Output of the masked dense layer within rounding, (…, outputs)."""
        if (nothing := self._none_of(x)) is not None:
            return nothing
        return sparse_linear(self._checked(x), None, self.bias, self.pattern, self.values)


class SparseConv1D(SparseRows, Conv1D):
    """Sparse `Conv1D` of a bundled GPT: keeps a dense weight and computes with its kept values."""


class CompactConv1D(CompactRows, Conv1D):  # type: ignore[override]  # has no weight to write to
    """Compact `Conv1D` of a bundled GPT, which has only the kept weights."""
