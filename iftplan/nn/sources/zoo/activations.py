"""Activations of the bundled networks; their names enter the networks' fingerprints."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu


class GELUActivation(nn.Module):
    """`x·Φ(x)` (Hendrycks and Gimpel 2016, arXiv 1606.08415), exact, as BERT and ViT have it."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, element by element."""
        return gelu(x)


class NewGELUActivation(nn.Module):
    """GELU by the hyperbolic tangent (arXiv 1606.08415, section 2), written out as in GPT-2."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, element by element."""
        half = 0.5 * x  # first: gradients are summed in this order, and their last bits depend on it
        return half * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class SiLUActivation(nn.Module):
    """`x·σ(x)` (Elfwing et al. 2017, arXiv 1702.03118)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, element by element."""
        return silu(x)
