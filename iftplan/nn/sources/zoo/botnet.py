"""BotNet-50 (Srinivas et al. 2021, arXiv 2101.11605): ResNet-50 whose last stage attends.

The three 3×3 convolutions of the last stage become multi-head self-attention over all positions with
four heads and relative position embeddings, one table for heights and one for widths. Where the
convolution had stride 2, the attention sees the larger map and 2×2 average pooling follows it (§3.1).

The Sparse-IFT paper (arXiv 2303.11525, appendix B.2) trains it on CIFAR-100 and does not say in which form. Assumption:
its stem is the one of the paper's ResNet-18 for CIFAR, 3×3 of stride 1 without pooling, so the last stage sees 8×8.
"""

from __future__ import annotations

import torch
from torch import nn

from iftplan.nn.sources.zoo.resnet import resnet50, resnet50_cifar

HEADS = 4
LAST_STAGE = "resnet.encoder.stages.3.layers"
LAST_STAGE_SIZE, LAST_STAGE_SIZE_CIFAR = (14, 14), (8, 8)
"""Positions that enter the last stage at 224×224, and at 32×32 behind the stem for CIFAR."""


class RelativeSelfAttention(nn.Module):
    """Self-attention over a feature map, `(B, C, H, W) → (B, C, H, W)`, with relative positions.

    Logits are `q·k + q·r`, where `r` is the sum of a learnt vector for the difference in height and
    one for the difference in width (arXiv 2101.11605, figure 4).

    Args:
        channels: C, all heads together.
        size: H and W, whose differences have vectors.
        heads: how many, each of C / heads channels.
    """

    def __init__(self, channels: int, size: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = channels // heads
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.relative_height = nn.Parameter(torch.randn(2 * size[0] - 1, self.head_dim) * self.head_dim**-0.5)
        self.relative_width = nn.Parameter(torch.randn(2 * size[1] - 1, self.head_dim) * self.head_dim**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend from every position to every position."""
        batch, _, height, width = x.shape
        query: torch.Tensor = self._split(self.query(x)) * self.head_dim**-0.5
        logits = query @ self._split(self.key(x)).transpose(-2, -1)
        logits = logits + self._position_logits(query, height, width)
        mixed = logits.softmax(-1) @ self._split(self.value(x))
        return mixed.transpose(-2, -1).reshape(batch, self.num_heads * self.head_dim, height, width)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W) → (B, heads, H·W, head_dim)`."""
        return x.reshape(x.shape[0], self.num_heads, self.head_dim, -1).transpose(-2, -1)

    def _position_logits(self, query: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """`q·r` of every pair of positions, `(B, heads, H·W, H·W)`."""
        batch = query.shape[0]
        grid = query.reshape(batch, self.num_heads, height, width, self.head_dim)
        by_height = _differences(self.relative_height, height)  # (H, H, head_dim)
        by_width = _differences(self.relative_width, width)  # (W, W, head_dim)
        # One batched product per axis: rows attend by their height, columns by their width.
        rows = grid @ by_height.transpose(-2, -1)
        columns = grid.transpose(2, 3) @ by_width.transpose(-2, -1)
        total = rows.unsqueeze(-1) + columns.transpose(2, 3).unsqueeze(-2)
        return total.reshape(batch, self.num_heads, height * width, height * width)


def _differences(table: torch.Tensor, size: int) -> torch.Tensor:
    """The table's vector for every pair of coordinates, `(2·size - 1, d) → (size, size, d)`."""
    if 2 * size - 1 > table.shape[0]:  # a negative index would silently wrap around
        raise ValueError(
            f"{size} positions along one axis, but there are relative ones for {len(table) // 2 + 1}"
        )
    coordinates = torch.arange(size, device=table.device)
    return table[coordinates[None, :] - coordinates[:, None] + (table.shape[0] - 1) // 2]


def botnet50() -> nn.Module:
    """BotNet-50 for 1000 classes at 224×224."""
    return attend_(resnet50())


def botnet50_cifar() -> nn.Module:
    """BotNet-50 for 100 classes at 32×32."""
    return attend_(resnet50_cifar(), LAST_STAGE_SIZE_CIFAR)


def attend_(model: nn.Module, size: tuple[int, int] = LAST_STAGE_SIZE) -> nn.Module:
    """A ResNet-50 whose last stage, which a map of `size` enters, attends; changed in place."""
    for block in model.get_submodule(LAST_STAGE).children():
        layer = block.get_submodule("layer.1")
        convolution = layer.get_submodule("convolution")
        assert isinstance(convolution, nn.Conv2d)
        attention: nn.Module = RelativeSelfAttention(convolution.out_channels, size, HEADS)
        if convolution.stride == (2, 2):
            attention = nn.Sequential(attention, nn.AvgPool2d(2))
            size = (size[0] // 2, size[1] // 2)
        layer.convolution = attention
    return model
