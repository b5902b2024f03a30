"""How the bundled networks' weights are drawn: again, over what PyTorch drew when the layers were made.

Draws follow one another in the order of the layers, each after its parts, and none is left out, not even one that
another overwrites. So a seed gives the weights that it has always given, and recorded runs can be repeated.
"""

from __future__ import annotations

from torch import nn

STD = 0.02


def draw_normal_(module: nn.Module) -> None:
    """Weights of a linear layer, convolution or embedding from N(0, 0.02²), biases and padding rows zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=STD)
        if module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])
