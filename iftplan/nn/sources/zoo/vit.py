"""ViT (Dosovitskiy et al. 2020, arXiv 2010.11929) that classifies by its class token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from iftplan.nn.sources.zoo.activations import GELUActivation
from iftplan.nn.sources.zoo.initial_weights import STD, draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction

EPS = 1e-12


def vit_b16() -> nn.Module:
    """ViT-B/16 for 1000 classes at 224×224."""
    return ViTForImageClassification(ViTSizes(layers=12, width=768, heads=12, patch=16, side=224), 1000)


@dataclass(frozen=True, slots=True)
class ViTSizes:
    """Sizes of a ViT.

    Attributes:
        layers: blocks.
        width: channels of a token.
        heads: of its attention.
        patch: side of a patch in pixels.
        side: of an image in pixels.
    """

    layers: int
    width: int
    heads: int
    patch: int
    side: int


class ViTPatchEmbeddings(nn.Module):
    """One vector for each patch."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, patches, channels)."""
        found: Tensor = self.projection(images).flatten(2).transpose(1, 2)
        return found


class ViTEmbeddings(nn.Module):
    """The class token and the patches, each with the vector of its position."""

    def __init__(self, sizes: ViTSizes) -> None:
        super().__init__()
        self.image_size = (sizes.side, sizes.side)
        self.cls_token = nn.Parameter(torch.randn(1, 1, sizes.width))
        self.patch_embeddings = ViTPatchEmbeddings(sizes.width, sizes.patch)
        positions = (sizes.side // sizes.patch) ** 2 + 1
        self.position_embeddings = nn.Parameter(torch.randn(1, positions, sizes.width))
        self.dropout = nn.Dropout(0.0)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, 1 + patches, channels).

        Raises:
            ValueError: images of a size that there are no positions for.
        """
        batch, _, height, width = images.shape
        if (height, width) != self.image_size:
            raise ValueError(
                f"images of {height}×{width}, but there are positions for {'×'.join(map(str, self.image_size))}"
            )
        tokens = torch.cat((self.cls_token.expand(batch, -1, -1), self.patch_embeddings(images)), 1)
        found: Tensor = self.dropout(tokens + self.position_embeddings)
        return found


class ViTAttention(nn.Module):
    """Every token attends to every token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        query, key, value = (
            project(x).view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = scaled_dot_product_attention(query, key, value, scale=self.scaling)
        found: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return found


class ViTMLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.activation_fn = GELUActivation()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → the same."""
        found: Tensor = self.fc2(self.activation_fn(self.fc1(x)))
        return found


class ViTLayer(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = ViTAttention(width, heads)
        self.layernorm_before = nn.LayerNorm(width, eps=EPS)
        self.layernorm_after = nn.LayerNorm(width, eps=EPS)
        self.mlp = ViTMLP(width)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        x = self.dropout(self.attention(self.layernorm_before(x))) + x
        mixed: Tensor = self.dropout(self.mlp(self.layernorm_after(x)))
        return mixed + x


class ViTModel(nn.Module):
    """Embeddings, blocks and a last norm."""

    def __init__(self, sizes: ViTSizes) -> None:
        super().__init__()
        self.embeddings = ViTEmbeddings(sizes)
        self.layers = nn.ModuleList(ViTLayer(sizes.width, sizes.heads) for _ in range(sizes.layers))
        self.layernorm = nn.LayerNorm(sizes.width, eps=EPS)
        self.apply(_draw_)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) → (batch, 1 + patches, channels)."""
        x = self.embeddings(images)
        for layer in self.layers:
            x = layer(x)
        found: Tensor = self.layernorm(x)
        return found


class ViTForImageClassification(nn.Module):
    """A ViT with its classifier."""

    def __init__(self, sizes: ViTSizes, classes: int) -> None:
        super().__init__()
        self.vit = ViTModel(sizes)
        self.classifier = nn.Linear(sizes.width, classes)
        self.classifier.apply(_draw_)

    def forward(self, pixel_values: Tensor) -> Prediction:
        """Logits of images, (batch, 3, side, side)."""
        return Prediction(self.classifier(self.vit(pixel_values)[:, 0, :]))


def _draw_(module: nn.Module) -> None:
    draw_normal_(module)
    if isinstance(module, ViTEmbeddings):
        nn.init.trunc_normal_(module.position_embeddings, std=STD)
        nn.init.trunc_normal_(module.cls_token, std=STD)
