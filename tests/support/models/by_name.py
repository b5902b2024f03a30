"""A network that calls its layers by the name of their input."""

from __future__ import annotations

from torch import Tensor, nn


class ByName(nn.Sequential):
    """The same layers, each called with its input by name."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(input=x)
        return x
