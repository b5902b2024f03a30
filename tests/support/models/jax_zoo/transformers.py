"""Transformers: ViT-B/16, MLP-Mixer, BERT, GPT-2's block at the sizes of GPT-3 Small, a Llama and a mixture of experts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import linen, nnx
from torch import Tensor, nn


class Block(linen.Module):
    """Block with its norm before attention and before the feed-forward layers."""

    width: int
    heads: int
    hidden: int

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = x + linen.MultiHeadDotProductAttention(self.heads)(linen.LayerNorm()(x))
        y = linen.gelu(linen.Dense(self.hidden)(linen.LayerNorm()(x)))
        return x + linen.Dense(self.width)(y)


class ViT(linen.Module):
    """Vision Transformer (arXiv 2010.11929)."""

    width: int = 768
    heads: int = 12
    hidden: int = 3072
    depth: int = 12
    classes: int = 1000

    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(self.width, (16, 16), 16, "VALID")(x).reshape(x.shape[0], -1, self.width)
        token = self.param("token", linen.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], 1)
        x = x + self.param("positions", linen.initializers.zeros, (1, x.shape[1], self.width))
        for _ in range(self.depth):
            x = Block(self.width, self.heads, self.hidden)(x)
        return linen.Dense(self.classes)(linen.LayerNorm()(x)[:, 0])


def vit(width: int = 768, hidden: int = 3072) -> tuple[Any, Any]:
    """ViT-B/16 and its input."""
    return ViT(width, hidden=hidden), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)


class Mixer(linen.Module):
    """MLP-Mixer (arXiv 2105.01601)."""

    width: int = 64
    tokens: int = 32
    channels: int = 128
    depth: int = 2

    def setup(self) -> None:
        self.stem = linen.Conv(self.width, (8, 8), 8, "VALID")
        self.mix_tokens = [_Mlp(self.tokens) for _ in range(self.depth)]
        self.mix_channels = [_Mlp(self.channels) for _ in range(self.depth)]
        self.norms = [linen.LayerNorm() for _ in range(2 * self.depth)]
        self.head = linen.Dense(10)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x).reshape(x.shape[0], -1, self.width)
        for block in range(self.depth):
            y = self.norms[2 * block](x).swapaxes(1, 2)
            x = x + self.mix_tokens[block](y).swapaxes(1, 2)
            x = x + self.mix_channels[block](self.norms[2 * block + 1](x))
        return self.head(x.mean(1))


class _Mlp(linen.Module):
    hidden: int

    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(x.shape[-1], name="fc2")(linen.gelu(linen.Dense(self.hidden, name="fc1")(x)))


def mixer() -> tuple[Any, Any]:
    """The Mixer and its input."""
    return Mixer(), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


class TorchMixer(nn.Module):
    """The same in PyTorch, under the same names."""

    def __init__(self, width: int = 64, tokens: int = 32, channels: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 8)
        for block in range(depth):
            self.add_module(f"mix_tokens_{block}", _TorchMlp(16, tokens))
            self.add_module(f"mix_channels_{block}", _TorchMlp(width, channels))
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2 * depth)])
        self.head = nn.Linear(width, 10)
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in range(self.depth):
            y = self.norms[2 * block](x).transpose(1, 2)
            x = x + self.get_submodule(f"mix_tokens_{block}")(y).transpose(1, 2)
            x = x + self.get_submodule(f"mix_channels_{block}")(self.norms[2 * block + 1](x))
        out: Tensor = self.head(x.mean(1))
        return out


class _TorchMlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class Attention(nnx.Module):
    """Attention of queries in groups, by products of our own."""

    def __init__(self, width: int, heads: int, groups: int, rngs: Any, *, fused: bool = False) -> None:
        self.heads, self.groups, self.size = heads, groups, width // heads
        if fused:
            self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        else:
            self.query = nnx.Linear(width, width, rngs=rngs)
            self.key = nnx.Linear(width, groups * self.size, rngs=rngs)
            self.value = nnx.Linear(width, groups * self.size, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        parts = (
            jnp.split(self.qkv(x), 3, -1)
            if hasattr(self, "qkv")
            else (self.query(x), self.key(x), self.value(x))
        )
        q, k, v = (part.reshape(*x.shape[:2], -1, self.size) for part in parts)
        q = q.reshape(*x.shape[:2], self.groups, -1, self.size)
        scores = jax.nn.softmax(jnp.einsum("btghd,bsgd->bghts", q, k))
        return self.out(jnp.einsum("bghts,bsgd->btghd", scores, v).reshape(x.shape))


class Bert(nnx.Module):
    """BERT with its head for masked words, which shares no weight (arXiv 1810.04805)."""

    def __init__(
        self, rngs: Any, width: int = 512, heads: int = 8, depth: int = 4, words: int = 30522
    ) -> None:
        self.words = nnx.Embed(words, width, rngs=rngs)
        self.blocks = nnx.List([Attention(width, heads, heads, rngs) for _ in range(depth)])
        self.up = nnx.List([nnx.Linear(width, 4 * width, rngs=rngs) for _ in range(depth)])
        self.down = nnx.List([nnx.Linear(4 * width, width, rngs=rngs) for _ in range(depth)])
        self.transform = nnx.Linear(width, width, rngs=rngs)
        self.decoder = nnx.Linear(width, words, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.words(tokens)
        for attend, up, down in zip(self.blocks, self.up, self.down, strict=True):
            x = x + attend(x)
            x = x + down(nnx.gelu(up(x)))
        return self.decoder(nnx.gelu(self.transform(x)))


class Gpt2(nnx.Module):
    """GPT-2's decoder (Radford et al. 2019), whose head shares the weight of the embedding."""

    def __init__(
        self, rngs: Any, width: int = 768, heads: int = 12, depth: int = 12, words: int = 50257
    ) -> None:
        self.words = nnx.Embed(words, width, rngs=rngs)
        self.blocks = nnx.List([Attention(width, heads, heads, rngs, fused=True) for _ in range(depth)])
        self.up = nnx.List([nnx.Linear(width, 4 * width, rngs=rngs) for _ in range(depth)])
        self.down = nnx.List([nnx.Linear(4 * width, width, rngs=rngs) for _ in range(depth)])

    def __call__(self, tokens: Any) -> Any:
        x = self.words(tokens)
        for attend, up, down in zip(self.blocks, self.up, self.down, strict=True):
            x = x + attend(x)
            x = x + down(nnx.gelu(up(x)))
        return self.words.attend(x)


class Llama(nnx.Module):
    """A Llama: grouped queries, gated feed-forward layers, rotated positions (arXiv 2307.09288)."""

    def __init__(
        self, rngs: Any, width: int = 64, heads: int = 8, groups: int = 2, hidden: int = 160
    ) -> None:
        def linear(before: int, after: int) -> nnx.Linear:
            return nnx.Linear(before, after, use_bias=False, rngs=rngs)

        self.words = nnx.Embed(100, width, rngs=rngs)
        self.blocks = nnx.List([Attention(width, heads, groups, rngs) for _ in range(2)])
        self.gate = nnx.List([linear(width, hidden) for _ in range(2)])
        self.up = nnx.List([linear(width, hidden) for _ in range(2)])
        self.down = nnx.List([linear(hidden, width) for _ in range(2)])
        self.head = linear(width, 100)

    def __call__(self, tokens: Any) -> Any:
        x = self.words(tokens)
        for attend, gate, up, down in zip(self.blocks, self.gate, self.up, self.down, strict=True):
            x = x + attend(x)
            x = x + down(nnx.silu(gate(x)) * up(x))
        return self.head(x)


class Mixture(linen.Module):
    """A mixture of experts, every token to two of four, rows sorted by expert (arXiv 2401.04088)."""

    width: int = 32
    hidden: int = 48
    experts: int = 4
    taken: int = 2

    @linen.compact
    def __call__(self, tokens: Any) -> Any:
        x = linen.Embed(60, self.width)(tokens)
        for _ in range(2):
            x = x + linen.MultiHeadDotProductAttention(4, use_bias=False)(linen.RMSNorm()(x))
            rows = linen.RMSNorm()(x).reshape(-1, self.width)
            x = x + Experts(self.hidden, self.experts, self.taken)(rows).reshape(x.shape)
        return linen.Dense(60, use_bias=False)(x)


class Experts(linen.Module):
    """Gated feed-forward layers, of which every row meets a few, in the order of their experts."""

    hidden: int
    experts: int
    taken: int

    @linen.compact
    def __call__(self, x: Any) -> Any:
        scores, chosen = jax.lax.top_k(linen.Dense(self.experts, use_bias=False)(x), self.taken)
        order = jnp.argsort(chosen.reshape(-1))
        sizes = jnp.bincount(chosen.reshape(-1), length=self.experts)
        init, width = linen.initializers.normal(), x.shape[-1]
        up = self.param("up", init, (self.experts, width, 2 * self.hidden))
        down = self.param("down", init, (self.experts, self.hidden, width))
        gate, rows = jnp.split(jax.lax.ragged_dot(jnp.repeat(x, self.taken, 0)[order], up, sizes), 2, -1)
        rows = jax.lax.ragged_dot(linen.silu(gate) * rows, down, sizes)
        weighted = rows * jax.nn.softmax(scores).reshape(-1, 1)[order]
        return jnp.zeros_like(x).at[order // self.taken].add(weighted)


def tokens(*shape: int) -> Any:
    """Shape of tokens."""
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def torch_llama() -> nn.Module:
    """The Llama of transformers at the same sizes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2, attention_bias=False, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval()


def torch_mixture() -> nn.Module:
    """The Mixtral of transformers at the same sizes."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, num_local_experts=4, num_experts_per_tok=2, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        return MixtralForCausalLM(config).eval()
