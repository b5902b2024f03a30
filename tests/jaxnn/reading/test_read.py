"""Specs of JAX models: layers, roles, products, and plans that are made of them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")

import jax
import jax.numpy as jnp
from flax import linen, nnx

import iftplan as ift
from iftplan.base.errors import InputError, MeasureError
from iftplan.jaxnn import count_jaxpr, measure, read_model
from iftplan.models.spec import Kind
from tests.support.models.jax_traps import Convolutional, Perceptron, W, X, f32, i32


class Tied(linen.Module):
    @linen.compact
    def __call__(self, tokens: Any) -> Any:
        table = linen.Embed(50, 8)
        x = table(tokens) + self.param("positions", linen.initializers.ones, (5, 8))
        x = x + linen.MultiHeadDotProductAttention(2)(x)
        return table.attend(x)


def test_layers_are_those_of_the_module_with_their_shapes_and_roles() -> None:
    spec = read_model(Convolutional(), f32(1, 8, 8, 3))
    assert [str(weight.layer) for weight in spec.layers] == [
        "conv3x3:3-8@16", "dwconv3x3:8@16", "convt3x3:8-4@16", "linear:256-10",
    ]  # fmt: skip
    assert [weight.layer.name for weight in spec.layers] == ["Conv_0", "Conv_1", "ConvTranspose_0", "Dense_0"]
    assert [weight.first for weight in spec.layers] == [True, False, False, False]
    assert [weight.last for weight in spec.layers] == [False, False, False, True]
    assert spec.macs == measure(Convolutional(), f32(1, 8, 8, 3)).macs
    assert [str(given) for given in spec.inputs] == ["1x8x8x3"]


def test_products_of_activations_are_by_module_and_a_tied_embedding_is_named() -> None:
    spec = ift.read_model(Tied(), i32(1, 5))
    layers = {weight.layer.name: weight for weight in spec.layers}
    assert {p.name: p.macs for p in spec.products} == {
        "MultiHeadDotProductAttention_0:dot_general": 2 * 25 * 8
    }
    assert layers["MultiHeadDotProductAttention_0.query"].layer.weights == 64
    assert layers["MultiHeadDotProductAttention_0.query"].first is False
    assert "embedding" in layers["Embed_0"].unmaskable
    assert layers["Embed_0"].layer.dense_macs == 5 * 8 * 50
    assert (layers["Embed_0"].first, layers["Embed_0"].last) == (True, True)


def test_an_embedding_that_is_only_looked_up_costs_nothing() -> None:
    spec = read_model(linen.Sequential([linen.Embed(50, 8), linen.Dense(3)]), i32(1, 5))
    table, head = spec.layers
    assert (table.layer.kind, table.layer.dense_macs) == (Kind.EMBEDDING, 0)
    assert (head.first, head.last, head.layer.dense_macs) == (False, True, 5 * 24)


def test_a_scanned_weight_is_a_stack() -> None:
    def function(params: Any, x: Any) -> Any:
        hidden = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, params["blocks"])[0]
        return hidden @ params["head"]

    blocks, head = read_model(function, {"blocks": f32(5, 8, 8), "head": f32(8, 2)}, f32(3, 8)).layers
    assert (blocks.layer.experts, blocks.layer.weights, blocks.layer.dense_macs) == (5, 320, 5 * 3 * 64)
    assert (blocks.first, blocks.last, head.first, head.last) == (True, False, False, True)


def test_nothing_is_allocated() -> None:
    huge = nnx.eval_shape(lambda: nnx.Linear(10**6, 10**6, rngs=nnx.Rngs(0)))
    assert read_model(huge, f32(1, 10**6)).macs == 10**12


def test_a_plan_is_made_of_a_jax_model() -> None:
    spec = ift.read_model(Perceptron(), f32(3, 4))
    plan = ift.plan(spec, "parallel", "3/4", keep_dense="none")
    assert (plan.residual_macs, plan.ratio("layers")) == (0, Fraction(1))


def test_a_module_stays_as_it_is_and_is_counted_in_evaluation_mode() -> None:
    network = Perceptron()
    before = jax.tree_util.tree_leaves(nnx.split(network)[1])
    assert measure(network, f32(3, 4)).macs == 144
    assert network.dropout.deterministic is False
    assert all(a is b for a, b in zip(before, jax.tree_util.tree_leaves(nnx.split(network)[1]), strict=True))


def test_a_closed_jaxpr_is_counted_as_it_is() -> None:
    assert count_jaxpr(jax.make_jaxpr(jnp.matmul)(X, W)).macs == 256


def test_a_vouched_cost_is_used() -> None:
    assert measure(jnp.linalg.svd, f32(4, 4), allow=["svd=0"]).unknown == {}
    assert measure(jnp.linalg.svd, f32(4, 4), allow=["svd=100"]).macs == 100


def test_a_module_that_is_not_called_is_named() -> None:
    assert measure(lambda p, x: x @ p["a"]["w"], {"a": {"w": W}, "b": {"w": W}}, X).uncalled == ("b",)


@pytest.mark.parametrize(
    ("model", "arguments", "error", "says"),
    [
        (jnp.matmul, (X, f32(3, 3)), MeasureError, "matmul could not be traced on 4x8, 3x3"),
        (jnp.linalg.svd, (f32(4, 4),), MeasureError, "no cost formula for svd (1 call)"),
        (3, (X,), InputError, "a int is no JAX model"),
        (Convolutional(), (f32(8),), MeasureError, "Convolutional could not be initialised on 8"),
    ],
)
def test_what_cannot_be_read_is_refused(
    model: Any, arguments: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as refused:
        read_model(model, *arguments)
    assert says in str(refused.value)
