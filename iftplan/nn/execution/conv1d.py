"""transformers' Conv1D, the linear layer of GPT-2: its weight is (inputs, outputs), and so is its mask."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from iftplan.nn.execution.functions import sparse_linear
from iftplan.nn.execution.layers import CompactLayer, SparseLayer

__all__ = ["CompactConv1D", "Conv1D", "SparseConv1D"]


class SparseConv1D(SparseLayer, Conv1D):  # type: ignore[misc]  # transformers has no types here
    """Sparse `transformers.pytorch_utils.Conv1D`: a dense weight, computed with what its mask keeps."""

    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Output of the dense layer within rounding, (…, outputs)."""
        pattern = self._pattern(x)
        if pattern is None:
            dense: Tensor = Conv1D.forward(self, x)
            return dense
        return sparse_linear(x, self.weight.T, self.bias, pattern, self._values())


class CompactConv1D(CompactLayer, Conv1D):  # type: ignore[misc]  # as above
    """Compact `transformers.pytorch_utils.Conv1D`, which has nothing but the kept weights."""

    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Output of the masked dense layer within rounding, (…, outputs)."""
        return sparse_linear(self._checked(x), None, self.bias, self.pattern, self.values)
