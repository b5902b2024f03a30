"""The linear layer of GPT-2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iftplan.nn.sources.zoo.initial_weights import STD


class Conv1D(nn.Module):
    """Linear layer whose weight is (inputs, outputs), as Radford et al. 2019 wrote it: a convolution over one position.

    Args:
        outputs: channels out, kept as `nf`.
        inputs: channels in.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=STD)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)."""
        rows = torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight)
        return rows.view(*x.shape[:-1], self.nf)

    def extra_repr(self) -> str:
        """Both sizes."""
        return f"nf={self.nf}, nx={len(self.weight)}"
