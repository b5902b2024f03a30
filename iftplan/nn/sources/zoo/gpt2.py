"""GPT-2 (Radford et al. 2019) in the sizes of GPT-3, and one small enough for a CPU.

Sizes are those of Brown et al. 2020 (arXiv 2005.14165, table 2.1), whose architecture is GPT-2's but for its sparse
attention pattern. The published 1.3 B row lists 24 heads of 128, which do not make its width of 2048; 16 heads of 128
do, the choice of most reproductions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from iftplan.nn.sources.zoo.activations import NewGELUActivation
from iftplan.nn.sources.zoo.conv1d import Conv1D
from iftplan.nn.sources.zoo.initial_weights import STD, draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction

DROPOUT = 0.1


def gpt3_small() -> nn.Module:
    """GPT-3 Small, 125 M parameters."""
    return GPT2LMHeadModel(GPT2Sizes(layers=12, width=768, heads=12))


def gpt3_small_2048() -> nn.Module:
    """GPT-3 Small with GPT-3's own context of 2048 tokens."""
    return GPT2LMHeadModel(GPT2Sizes(layers=12, width=768, heads=12, context=2048))


def gpt3_medium() -> nn.Module:
    """GPT-3 Medium, 350 M parameters."""
    return GPT2LMHeadModel(GPT2Sizes(layers=24, width=1024, heads=16))


def gpt3_1_3b() -> nn.Module:
    """GPT-3 XL, 1.3 B parameters, with 16 heads of 128."""
    return GPT2LMHeadModel(GPT2Sizes(layers=24, width=2048, heads=16))


def gpt_char(activation: Callable[[], nn.Module] = NewGELUActivation) -> nn.Module:
    """A GPT small enough to train on a CPU, over bytes; with `nn.ReLU` its activations have zeros."""
    return GPT2LMHeadModel(
        GPT2Sizes(layers=4, width=128, heads=4, vocabulary=256, context=128, activation=activation)
    )


@dataclass(frozen=True, slots=True)
class GPT2Sizes:
    """Sizes of a GPT.

    Attributes:
        layers: blocks.
        width: channels of a token.
        heads: of its attention.
        vocabulary: kinds of tokens.
        context: the most tokens of a text.
        activation: makes the activation between the two layers of an MLP.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int = 50257
    context: int = 1024
    activation: Callable[[], nn.Module] = NewGELUActivation


class GPT2Attention(nn.Module):
    """Every token attends to itself and to those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.split_size = width
        self.scaling = self.head_dim**-0.5
        self.c_attn = Conv1D(3 * width, width)
        self.c_proj = Conv1D(width, width)
        self.attn_dropout = nn.Dropout(DROPOUT)
        self.resid_dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        query, key, value = (
            part.view(*part.shape[:-1], -1, self.head_dim).transpose(1, 2)
            for part in self.c_attn(x).split(self.split_size, dim=2)
        )
        dropout = self.attn_dropout.p if self.training else 0.0
        mixed = scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=self.scaling
        )
        found: Tensor = self.resid_dropout(self.c_proj(mixed.transpose(1, 2).flatten(2)))
        return found


class GPT2MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, width: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.c_fc = Conv1D(4 * width, width)
        self.c_proj = Conv1D(width, 4 * width)
        self.act = activation()
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → the same."""
        found: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(x))))
        return found


class GPT2Block(nn.Module):
    """Attention and MLP, each normalised before and added to its input."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(sizes.width)
        self.attn = GPT2Attention(sizes.width, sizes.heads)
        self.ln_2 = nn.LayerNorm(sizes.width)
        self.mlp = GPT2MLP(sizes.width, sizes.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        x = self.attn(self.ln_1(x)) + x
        mixed: Tensor = self.mlp(self.ln_2(x))
        return x + mixed


class GPT2Model(nn.Module):
    """Tokens and positions, blocks and a last norm."""

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.wte = nn.Embedding(sizes.vocabulary, sizes.width)
        self.wpe = nn.Embedding(sizes.context, sizes.width)
        self.drop = nn.Dropout(DROPOUT)
        self.h = nn.ModuleList(GPT2Block(sizes) for _ in range(sizes.layers))
        self.ln_f = nn.LayerNorm(sizes.width)
        self.apply(partial(_draw_, layers=sizes.layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) → (batch, tokens, channels).

        Raises:
            ValueError: more tokens than positions, on the meta device.
        """
        length, known = tokens.shape[-1], self.wpe.num_embeddings
        if tokens.is_meta and length > known:  # a real table refuses the index itself
            raise ValueError(f"{length} tokens, but there are positions for {known}")
        positions = torch.arange(length, device=tokens.device).unsqueeze(0)
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        for block in self.h:
            x = block(x)
        found: Tensor = self.ln_f(x)
        return found


class GPT2LMHeadModel(nn.Module):
    """A GPT with its head, whose weight is that of the token embedding.

    Attributes:
        all_tied_weights_keys: tied weights by the name of their original.
    """

    all_tied_weights_keys: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"lm_head.weight": "transformer.wte.weight"}
    )

    def __init__(self, sizes: GPT2Sizes) -> None:
        super().__init__()
        self.transformer = GPT2Model(sizes)
        self.lm_head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        self.lm_head.apply(draw_normal_)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Give the head the weight of the token embedding, again after a move that lost the tie."""
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, input_ids: Tensor) -> Prediction:
        """Logits of the token after each, for texts of numbered tokens, (batch, tokens)."""
        return Prediction(self.lm_head(self.transformer(input_ids)))


def _draw_(module: nn.Module, layers: int) -> None:
    """Layers that end a branch are drawn smaller by √(2·layers) (Radford et al. 2019, section 2.3)."""
    draw_normal_(module)
    if isinstance(module, Conv1D):
        nn.init.normal_(module.weight, std=STD)
    elif isinstance(module, GPT2Attention | GPT2MLP):
        nn.init.normal_(module.c_proj.weight, std=STD / math.sqrt(2 * layers))
