"""Small JAX functions where counters are known to go wrong, and what they really perform, worked out by hand.

`tests/jaxnn/counting/test_traps.py` holds our counter against this list, `benchmarks/counting/jax_traps.py` XLA's analysis as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental import sparse
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def f32(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


@dataclass(frozen=True)
class JaxTrap:
    """A function or module, its arguments and the MACs that it really performs.

    Attributes:
        name: what is tricky.
        model: a function, or what makes a module.
        arguments: shapes.
        macs: the truth; what has to be named as unknown is left out.
        unknown: primitives that have to be named because nobody can know their cost.
        assumes: what the table has to say was assumed.
        makes: whether `model` has to be called to make the model.
    """

    name: str
    model: Callable[..., Any]
    arguments: tuple[Any, ...]
    macs: int
    unknown: tuple[str, ...] = ()
    assumes: str = ""
    makes: bool = False

    def build(self) -> Any:
        return self.model() if self.makes else self.model


def conv(x: Any, k: Any, strides: tuple[int, ...] = (1, 1), padding: Any = "SAME", **options: Any) -> Any:
    return lax.conv_general_dilated(
        x, k, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def repeated(x: Any, w: Any, *, length: int) -> Any:
    return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=length)[0]


def rnn(xs: Any, wx: Any, wh: Any) -> Any:
    return lax.scan(lambda h, x: ((new := jnp.tanh(x @ wx + h @ wh)), new), jnp.zeros((2, wh.shape[0])), xs)[
        1
    ]


def nested(x: Any, w: Any) -> Any:
    return lax.scan(lambda c, _: (repeated(c, w, length=3), None), x, None, length=5)[0]


def traced_bounds(x: Any, w: Any, n: Any) -> Any:
    return lax.fori_loop(0, n, lambda _, c: c @ w, x)


def downwards(x: Any, w: Any) -> Any:
    return lax.while_loop(lambda c: c[0] > 0, lambda c: (c[0] - 1, c[1] @ w), (4, x))[1]


def checkpointed(w: Any, x: Any) -> Any:
    return jax.checkpoint(lambda w, x: jnp.sin(jnp.sin(x @ w) @ w))(w, x).sum()


def two_layers(params: Any, x: Any) -> Any:
    return (jax.nn.relu(x @ params["first"]) @ params["second"]).sum()


@jax.custom_vjp
def rounded(x: Any, w: Any) -> Any:
    return jnp.round(x @ w)


def _rounded_forward(x: Any, w: Any) -> Any:
    return jnp.round(x @ w), (x, w)


def _rounded_backward(kept: Any, g: Any) -> Any:
    x, w = kept
    return g @ w.T, x.T @ (g @ jnp.eye(g.shape[1], dtype=g.dtype))


rounded.defvjp(_rounded_forward, _rounded_backward)


@jax.custom_jvp
def squared(x: Any, w: Any) -> Any:
    return (x @ w) ** 2


squared.defjvp(
    lambda primals, tangents: (squared(*primals), 2 * (primals[0] @ primals[1]) * tangents[0][:, :1])
)


def attention(q: Any, k: Any, v: Any, *, causal: bool = False) -> Any:
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)


def mixture(x: Any, router: Any, up: Any, down: Any) -> Any:
    """Two of four experts for each of six rows, the rows sorted by their expert."""
    scores, chosen = lax.top_k(x @ router, 2)
    order = jnp.argsort(chosen.reshape(-1))
    sizes = jnp.bincount(chosen.reshape(-1), length=4).astype(jnp.int32)
    rows = jnp.repeat(x, 2, axis=0)[order]
    hidden = jax.nn.gelu(lax.ragged_dot(rows, up, sizes))
    return lax.ragged_dot(hidden, down, sizes) * scores.reshape(-1)[order][:, None]


def blocked(x: Any, y: Any) -> Any:
    def kernel(x: Any, y: Any, out: Any) -> None:
        out[...] = x[...] @ y[...]

    return pl.pallas_call(
        kernel,
        grid=(2, 3),
        in_specs=[pl.BlockSpec((8, 16), lambda i, j: (i, 0)), pl.BlockSpec((16, 8), lambda i, j: (0, j))],
        out_specs=pl.BlockSpec((8, 8), lambda i, j: (i, j)),
        out_shape=f32(16, 24),
    )(x, y)


def sharded(x: Any, w: Any) -> Any:
    mesh = Mesh(np.array(jax.devices()[:1]), ("rows",))
    return jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(P("rows"), P()), out_specs=P("rows"))(x, w)


def bcoo(stored: int, *shape: int) -> Any:
    return sparse.BCOO((jnp.ones(stored), jnp.zeros((stored, len(shape)), jnp.int32)), shape=shape)


class Convolutional(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.Conv(8, (3, 3), strides=2)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=True)(x))
        x = linen.Conv(8, (3, 3), feature_group_count=8)(x)
        x = linen.ConvTranspose(4, (3, 3), strides=(2, 2))(x)
        return linen.Dense(10)(x.reshape(x.shape[0], -1))


class Perceptron(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.dropout(nnx.relu(self.first(x))))


@jax.tree_util.register_pytree_node_class
class Dense:
    """A callable that holds arrays beside what is none, as the modules of Equinox do."""

    def __init__(self, weight: Any, activation: Any) -> None:
        self.weight, self.activation = weight, activation

    def __call__(self, x: Any) -> Any:
        return self.activation(x @ self.weight)

    def tree_flatten(self) -> Any:
        return (self.weight, self.activation), None

    @classmethod
    def tree_unflatten(cls, _: Any, leaves: Any) -> Any:
        return cls(*leaves)


def einsum(notation: str) -> Callable[..., Any]:
    return partial(jnp.einsum, notation)


X, W = f32(4, 8), f32(8, 8)
HALF = {"first": f32(8, 16), "second": f32(16, 2)}

TRAPS = (
    # products
    JaxTrap("matrix product", jnp.matmul, (f32(4, 8), f32(8, 16)), 4 * 8 * 16),
    JaxTrap("matrix times vector", jnp.matmul, (f32(4, 8), f32(8)), 4 * 8),
    JaxTrap("inner product", jnp.dot, (f32(8), f32(8)), 8),
    JaxTrap("outer product sums nothing", jnp.outer, (f32(4), f32(8)), 0),
    JaxTrap("outer product by einsum", einsum("i,j->ij"), (f32(4), f32(8)), 0),
    JaxTrap("elementwise product by einsum", einsum("ij,ij->ij"), (X, X), 0),
    JaxTrap("batched product by einsum", einsum("bij,bjk->bik"), (f32(3, 4, 5), f32(3, 5, 6)), 3 * 4 * 5 * 6),
    JaxTrap("two summed indices", einsum("bhwc,hwcd->bd"), (f32(2, 3, 3, 4), f32(3, 3, 4, 5)), 2 * 36 * 5),
    JaxTrap("three operands by einsum", einsum("ij,jk,kl->il"), (f32(2, 64), f32(64, 2), f32(2, 64)), 2 * 64 * 2 + 2 * 2 * 64),
    JaxTrap("tensordot", partial(jnp.tensordot, axes=2), (f32(3, 4, 5), f32(4, 5, 6)), 3 * 20 * 6),
    JaxTrap("vmap of a product", jax.vmap(jnp.matmul), (f32(3, 4, 5), f32(3, 5, 6)), 3 * 4 * 5 * 6),
    JaxTrap("vmap over one operand", jax.vmap(jnp.matmul, (0, None)), (f32(3, 4, 5), f32(5, 6)), 3 * 4 * 5 * 6),
    JaxTrap("vmap of a vmap", jax.vmap(jax.vmap(jnp.dot)), (f32(3, 4, 5), f32(3, 4, 5)), 60),
    JaxTrap("integers", jnp.matmul, (i32(4, 8), i32(8, 3)), 96),
    JaxTrap("no rows", jnp.matmul, (f32(0, 8), f32(8, 3)), 0),
    JaxTrap("matrix power", partial(jnp.linalg.matrix_power, n=5), (f32(4, 4),), 3 * 64),
    # convolutions
    JaxTrap("convolution", conv, (f32(1, 8, 8, 3), f32(3, 3, 3, 16)), 64 * 27 * 16),
    JaxTrap("strides", partial(conv, strides=(2, 2)), (f32(1, 9, 9, 3), f32(3, 3, 3, 16)), 25 * 27 * 16),
    JaxTrap("groups", partial(conv, feature_group_count=4), (f32(1, 8, 8, 8), f32(3, 3, 2, 16)), 64 * 18 * 16),
    JaxTrap("depthwise", partial(conv, feature_group_count=8), (f32(1, 8, 8, 8), f32(3, 3, 1, 8)), 64 * 9 * 8),
    JaxTrap("dilated kernel", partial(conv, rhs_dilation=(2, 2)), (f32(1, 8, 8, 3), f32(3, 3, 3, 16)), 64 * 27 * 16),
    JaxTrap("no padding", partial(conv, padding="VALID"), (f32(1, 8, 8, 3), f32(3, 3, 3, 16)), 36 * 27 * 16),
    JaxTrap("transposed convolution meets no inserted zeros", lambda x, k: lax.conv_transpose(x, k, (2, 2), "SAME"), (f32(1, 4, 4, 8), f32(3, 3, 8, 4)), 16 * 9 * 32),
    JaxTrap("transposed convolution, kernel of the stride", lambda x, k: lax.conv_transpose(x, k, (2, 2), "VALID"), (f32(1, 4, 4, 8), f32(2, 2, 8, 4)), 16 * 4 * 32),
    JaxTrap("one dimension", lambda x, k: lax.conv_general_dilated(x, k, (1,), "SAME"), (f32(2, 3, 10), f32(5, 3, 7)), 2 * 10 * 21 * 5),
    JaxTrap("vmap of a convolution over its kernels", jax.vmap(conv, (None, 0)), (f32(1, 8, 8, 3), f32(5, 3, 3, 3, 16)), 5 * 64 * 27 * 16),
    JaxTrap("vmap of a convolution over both", jax.vmap(conv), (f32(5, 1, 8, 8, 3), f32(5, 3, 3, 3, 16)), 5 * 64 * 27 * 16),
    JaxTrap("average pooling multiplies nothing", partial(linen.avg_pool, window_shape=(2, 2)), (f32(1, 8, 8, 3),), 0),
    # gradients
    JaxTrap("gradient of a convolution with strides and groups", jax.grad(lambda k, x: conv(x, k, (2, 2), feature_group_count=2).sum(), (0, 1)), (f32(3, 3, 2, 6), f32(2, 8, 8, 4)), 3 * 2 * 16 * 18 * 6),
    JaxTrap("gradient of a transposed convolution", jax.grad(lambda k, x: lax.conv_transpose(x, k, (2, 2), "SAME").sum(), (0, 1)), (f32(2, 2, 8, 4), f32(1, 4, 4, 8)), 3 * 16 * 4 * 32),
    JaxTrap("gradient of two layers: none for the input", jax.grad(two_layers), (HALF, f32(3, 8)), 2 * 3 * 8 * 16 + 3 * 3 * 16 * 2),
    JaxTrap("gradient through remat computes the block again", jax.grad(checkpointed), (W, X), (2 + 2 + 3) * 256),
    JaxTrap("forward derivative", lambda x, t, w: jax.jvp(lambda x: x @ w, (x,), (t,)), (X, X, W), 2 * 256),
    JaxTrap("custom gradient, forward", rounded, (X, W), 256),
    JaxTrap("custom gradient", jax.grad(lambda x, w: rounded(x, w).sum(), (0, 1)), (X, W), 256 + 256 + 256 + 256),
    JaxTrap("custom derivative, forward", squared, (X, W), 256),
    JaxTrap("Hessian times vector", lambda x, v: jax.jvp(jax.grad(lambda x: jnp.sin(x @ jnp.ones((8, 8))).sum()), (x,), (v,))[1], (f32(8), f32(8)), 4 * 64),
    # control flow
    JaxTrap("scan", partial(repeated, length=7), (X, W), 7 * 256),
    JaxTrap("recurrent layer", rnn, (f32(6, 2, 4), f32(4, 5), f32(5, 5)), 6 * 2 * (20 + 25)),
    JaxTrap("scan in a scan", nested, (X, W), 15 * 256),
    JaxTrap("gradient of a scan", jax.grad(lambda w, x: repeated(x, w, length=7).sum()), (W, X), 7 * 3 * 256),
    JaxTrap("scan of no steps", partial(repeated, length=0), (X, W), 0),
    JaxTrap("map is a scan", lambda xs, w: lax.map(lambda x: x @ w, xs), (f32(6, 4, 8), W), 6 * 256),
    JaxTrap("associative scan of products", partial(lax.associative_scan, jnp.matmul), (f32(4, 3, 3),), (2 + 1 + 0 + 1) * 27),
    JaxTrap("fori_loop", lambda x, w: lax.fori_loop(0, 5, lambda _, c: c @ w, x), (X, W), 5 * 256),
    JaxTrap("fori_loop between arrays", lambda x, w: lax.fori_loop(jnp.int32(2), jnp.int32(7), lambda _, c: c @ w, x), (X, W), 5 * 256),
    JaxTrap("fori_loop whose bound a jit hides", lambda x, w: jax.jit(traced_bounds)(x, w, 6), (X, W), 6 * 256),
    JaxTrap("fori_loop up to an argument", traced_bounds, (X, W, i32()), 0, ("while",)),
    JaxTrap("while counts down", downwards, (X, W), 0, ("while",)),
    JaxTrap("while until it converges", lambda x, w: lax.while_loop(lambda c: jnp.abs(c).max() > 1, lambda c: c @ w, x), (X, W), 0, ("while",)),
    JaxTrap("while without products", lambda n: lax.while_loop(lambda c: c < n, lambda c: c * 2, 1), (i32(),), 0, assumes="runs an unknown number of times"),
    JaxTrap("cond of unequal branches", lambda p, x, w: lax.cond(p, lambda x: x @ w @ w, lambda x: x @ w, x), (jax.ShapeDtypeStruct((), jnp.bool_), X, W), 512, assumes="256 or 512 MACs"),
    JaxTrap("cond of equal branches", lambda p, x, w: lax.cond(p, lambda x: x @ w, lambda x: x @ w.T, x), (jax.ShapeDtypeStruct((), jnp.bool_), X, W), 256),
    JaxTrap("vmap of a cond runs both branches", jax.vmap(lambda p, x, w: lax.cond(p, lambda x: x @ w @ w, lambda x: x @ w, x), (0, 0, None)), (jax.ShapeDtypeStruct((3,), jnp.bool_), f32(3, 8), W), 3 * 3 * 64),
    JaxTrap("switch", lambda i, x, w: lax.switch(i, [lambda x: x, lambda x: x @ w, lambda x: x @ w @ w], x), (i32(), X, W), 512, assumes="0 or 256 or 512 MACs"),
    JaxTrap("jit in a jit", jax.jit(lambda x, w: jax.jit(jnp.matmul)(x, w) @ w), (X, W), 512),
    # attention, mixtures, sparse operands, kernels, devices
    JaxTrap("attention", attention, (f32(2, 6, 4, 8), f32(2, 9, 4, 8), f32(2, 9, 4, 8)), 2 * 2 * 4 * 6 * 9 * 8),
    JaxTrap("causal attention computes all scores", partial(attention, causal=True), (f32(2, 6, 4, 8),) * 3, 2 * 2 * 4 * 36 * 8),
    JaxTrap("attention with grouped queries", attention, (f32(2, 6, 4, 8), f32(2, 6, 2, 8), f32(2, 6, 2, 8)), 2 * 2 * 4 * 36 * 8),
    JaxTrap("rows in groups", lax.ragged_dot, (f32(10, 8), f32(3, 8, 5), i32(3)), 10 * 8 * 5),
    JaxTrap("gradient of rows in groups", jax.grad(lambda x, w, g: lax.ragged_dot(x, w, g).sum(), (0, 1)), (f32(10, 8), f32(3, 8, 5), i32(3)), 3 * 10 * 8 * 5),
    JaxTrap("mixture of experts", mixture, (f32(6, 8), f32(8, 4), f32(4, 8, 16), f32(4, 16, 8)), 6 * 32 + 2 * 12 * 8 * 16),
    JaxTrap("sparse times dense", lambda m, x: m @ x, (bcoo(5, 8, 8), f32(8, 3)), 5 * 3),
    JaxTrap("sparse times vector", lambda m, x: m @ x, (bcoo(5, 8, 8), f32(8)), 5),
    JaxTrap("sparse times sparse", lambda a, b: a @ b, (bcoo(5, 8, 8), bcoo(4, 8, 8)), 0, ("bcoo_spdot_general",)),
    JaxTrap("Pallas kernel", blocked, (f32(16, 16), f32(16, 24)), 16 * 16 * 24),
    JaxTrap("shard_map", sharded, (X, W), 256),
    # what has no formula
    JaxTrap("singular values", lambda x: jnp.linalg.svd(x @ x), (f32(4, 4),), 64, ("svd",)),
    JaxTrap("solving", jnp.linalg.solve, (f32(4, 4), f32(4, 2)), 0, ("lu", "triangular_solve")),
    JaxTrap("Fourier transform", jnp.fft.fft, (f32(16),), 0, ("fft",)),
    JaxTrap("callback", lambda x, w: jax.pure_callback(lambda x: x, f32(4, 8), x) @ w, (X, W), 256, ("pure_callback",)),
    # modules
    JaxTrap("linen", Convolutional, (f32(1, 8, 8, 3),), 16 * 27 * 8 + 16 * 9 * 8 + 16 * 9 * 32 + 256 * 10, makes=True),
    JaxTrap("nnx", Perceptron, (f32(3, 4),), 3 * (4 * 8 + 8 * 2), makes=True),
    JaxTrap("nnx attention", lambda: nnx.MultiHeadAttention(4, 16, rngs=nnx.Rngs(0), decode=False), (f32(2, 5, 16),), 10 * 4 * 256 + 2 * 2 * 25 * 16, makes=True),
    JaxTrap("linen LSTM", lambda: linen.RNN(linen.LSTMCell(6)), (f32(2, 5, 4),), 2 * 5 * 4 * (4 * 6 + 6 * 6), makes=True),
    JaxTrap("callable pytree", lambda: Dense(f32(8, 5), jax.nn.relu), (f32(3, 8),), 120, makes=True),
)  # fmt: skip
