"""Small networks of Flax and Equinox, by whose attributes and arguments they can be made wider."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen, nnx


class LinenTransformer(linen.Module):
    """One block of a language model."""

    embed: int = 12
    heads: int = 3
    hidden: int = 48
    depth: int = 2

    @linen.compact
    def __call__(self, tokens: Any) -> Any:
        x = linen.Embed(50, self.embed)(tokens)
        for _ in range(self.depth):
            x = x + linen.MultiHeadDotProductAttention(self.heads)(linen.LayerNorm()(x))
            x = x + linen.Dense(self.embed)(linen.relu(linen.Dense(self.hidden)(x)))
        return linen.Dense(50)(x)


class LinenConvolutional(linen.Module):
    """Convolutions of all kinds."""

    widths: tuple[int, ...] = (8, 16)
    classes: int = 5

    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        for width in self.widths:
            x = linen.Conv(width, (3, 3), strides=2)(x)
            x = linen.Conv(width, (3, 3), feature_group_count=width, use_bias=False)(x)
            x = linen.relu(linen.Conv(width, (1, 1), feature_group_count=4)(x))
        x = linen.ConvTranspose(self.widths[-1], (3, 3), strides=(2, 2))(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(self.classes)(x.mean((1, 2)))


class NnxNetwork(nnx.Module):
    """Convolutions and attention."""

    def __init__(self, width: int, heads: int, rngs: Any) -> None:
        self.stem = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.blocks = nnx.List([nnx.Conv(width, width, (3, 3), rngs=rngs) for _ in range(2)])
        self.up = nnx.ConvTranspose(width, width, (2, 2), strides=(2, 2), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.head = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = nnx.relu(block(x))
        x = self.up(x)
        return self.head(self.attention(x.reshape(x.shape[0], -1, x.shape[-1])).mean(1))


def nnx_network(width: int = 8, heads: int = 2) -> tuple[Any, Any]:
    """The network of `flax.nnx` and its input."""
    return NnxNetwork(width, heads, nnx.Rngs(0)), jnp.ones((1, 4, 4, 3))


class EquinoxNetwork(eqx.Module):
    """Convolutions and a perceptron, for one sample."""

    stem: eqx.nn.Conv2d
    up: eqx.nn.ConvTranspose2d
    grouped: eqx.nn.Conv
    mlp: eqx.nn.MLP

    def __init__(self, width: int, key: Any) -> None:
        self.stem = eqx.nn.Conv2d(3, width, 3, padding=1, key=key)
        self.up = eqx.nn.ConvTranspose2d(width, width, 2, stride=2, key=key)
        self.grouped = eqx.nn.Conv(2, width, width, 3, stride=2, padding=1, groups=2, key=key)
        self.mlp = eqx.nn.MLP(width * 16, 5, 4 * width, 2, key=key)

    def __call__(self, x: Any) -> Any:
        x = self.grouped(jax.nn.relu(self.up(self.stem(x))))
        return self.mlp(x.reshape(-1))


def equinox_network(width: int = 8) -> tuple[Any, Any]:
    """The network of Equinox and its input."""
    return EquinoxNetwork(width, jax.random.key(0)), jnp.ones((3, 4, 4))


def scanned(width: int = 8) -> tuple[Any, Any]:
    """A stack of one block in `flax.linen`, each step with weights of its own."""

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x: Any, _: Any) -> tuple[Any, None]:
            return x + linen.Dense(width)(linen.relu(linen.Dense(3 * width)(x))), None

    class Stack(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            blocks = linen.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
            return linen.Dense(4)(blocks(name="blocks")(linen.Dense(width)(x), None)[0])

    return Stack(), jnp.ones((2, 6))
