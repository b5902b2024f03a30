"""Plans on models of Flax and Equinox: built, counted, and equal to the plan, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")
pytest.importorskip("equinox", reason="Equinox, of the extra jax, is not installed")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import iftplan as ift
from iftplan.base.errors import InfeasibleError, InputError, StaleError
from iftplan.jaxnn import apply, audit, measure_applied
from iftplan.jaxnn.sources.models import traceable
from tests.support.models.jax_networks import (
    LinenConvolutional,
    LinenTransformer,
    equinox_network,
    nnx_network,
    scanned,
)
from tests.support.models.jax_zoo.convolutional import resnet50
from tests.support.models.jax_zoo.transformers import vit

TOKENS, IMAGES = jax.ShapeDtypeStruct((2, 7), jnp.int32), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)

MODELS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "linen transformer": (LinenTransformer(), (TOKENS,)),
    "linen convolutions": (LinenConvolutional(), (IMAGES, False)),
    "linen attributes": (
        linen.Sequential([linen.Dense(16), linen.Dense(16), linen.Dense(4)]),
        (jax.ShapeDtypeStruct((2, 8), jnp.float32),),
    ),
    "linen scan": (scanned()[0], scanned()[1:]),
    "nnx": (nnx.eval_shape(lambda: nnx_network()[0]), nnx_network()[1:]),
    "equinox": (eqx.filter_eval_shape(lambda: equinox_network()[0]), equinox_network()[1:]),
}


@pytest.mark.parametrize("family", ["none", "parallel", "factorized", "doped"])
@pytest.mark.parametrize("name", MODELS)
def test_the_structure_of_a_plan_costs_what_is_planned(name: str, family: str) -> None:
    model, arguments = MODELS[name]
    plan = ift.plan(ift.read_model(model, *arguments, widths=False), family, "3/4")
    report = audit(plan, model, *arguments)
    assert (report.verdict.value, report.problems) == ("passed", ())
    assert family == "none" or any(layer.member_size for layer in plan.layers)


@pytest.mark.parametrize(
    ("model", "arguments", "widths"),
    [
        (LinenTransformer(), (TOKENS,), {"embed": 24, "hidden": 96}),
        (LinenConvolutional(), (IMAGES, False), {"widths.0": 16, "widths.1": 32}),
        (nnx_network, (), {"width": 16}),
        (equinox_network, (), {"width": 16}),
    ],
)
def test_a_wide_plan_sets_numbers_of_the_configuration(
    model: Any, arguments: Any, widths: dict[str, int]
) -> None:
    spec = ift.read_model(model, *arguments)
    assert spec.refusal == ""
    plan = ift.plan(spec, "wide", "3/4")
    assert plan.widths == widths
    assert audit(plan, model, *arguments).passed
    assert plan.residual_macs in range(max(layer.positions for layer in plan.layers))


def test_only_numbers_that_widen_are_widths_and_heads_stay_as_many() -> None:
    couplings = ift.read_model(LinenTransformer(), TOKENS).couplings
    assert couplings is not None
    assert {name: (w.size, w.multiple_of) for name, w in couplings.widths.items()} == {
        "embed": (12, 3),  # three heads
        "hidden": (48, 1),
    }  # neither heads nor depth
    scores = couplings.product_macs["MultiHeadDotProductAttention_0:dot_general"]
    assert str(scores) == "196·embed"  # 2 samples, 7 · 7 pairs, scores and values


def test_a_module_that_is_built_already_is_not_made_wider() -> None:
    model, *inputs = nnx_network()
    with pytest.raises(InfeasibleError, match="cannot be widened: no number of its configuration widens it"):
        ift.plan(ift.read_model(model, *inputs), "wide", "3/4")
    plan = ift.plan(ift.read_model(nnx_network), "wide", "3/4")
    with pytest.raises(InfeasibleError, match="NnxNetwork has no width to set, since it is built already"):
        apply(plan, model)


def test_a_plan_of_another_model_is_refused() -> None:
    plan = ift.plan(ift.read_model(LinenTransformer(), TOKENS, widths=False), "parallel", "3/4")
    with pytest.raises(StaleError, match="the LinenTransformer is not the model that the plan was made for"):
        audit(plan, LinenTransformer(hidden=50), TOKENS)


@pytest.mark.parametrize("family", ["wide", "parallel", "factorized", "doped"])
def test_an_applied_network_runs_and_is_measured_with_its_masks(family: str) -> None:
    model = LinenTransformer(depth=1)
    tokens = jnp.ones((2, 7), int)
    plan = ift.plan(ift.read_model(model, tokens), family, "3/4")
    applied = apply(plan, model, tokens, inside=lambda channels: jax.nn.relu)
    variables = applied.init(jax.random.key(0), tokens)
    assert applied.apply(variables, tokens).shape == (2, 7, 50)
    masks = planned_masks(plan, variables["params"])
    thin = {name: value * masks.get(name, 1) for name, value in named(variables["params"]).items()}
    report = measure_applied(plan, applied, tokens, masks=masks, weights=thin)
    assert (report.verdict.value, report.problems) == ("passed", ())
    wasted = measure_applied(plan, applied, tokens, masks=masks, weights=variables["params"])
    assert "is not zero off its mask" in " ".join(wasted.problems)
    first = next(name for name, mask in masks.items() if not mask.all())
    more = measure_applied(plan, applied, tokens, masks=masks | {first: np.ones_like(masks[first])})
    assert more.verdict.value == "failed"


def named(tree: Any) -> dict[str, Any]:
    from iftplan.jaxnn.sources.models import leaf_names

    return leaf_names(tree)


def planned_masks(plan: Any, params: Any) -> dict[str, Any]:
    """Masks with a plan's counts: the first weights of each layer are kept."""
    weights, masks = named(params), {}
    for layer in plan.layers:
        if not layer.maskable:
            continue
        dense = (".U.kernel", ".V.kernel") if layer.transform == "doped" or plan.transform == "doped" else ()
        mine = [
            name
            for name in weights
            if (name == layer.weight or name.startswith(f"{layer.name}."))
            and name.endswith("kernel")
            and not name.endswith(dense or ("\0",))
        ]
        left = layer.nnz
        for name in mine:
            size = weights[name].size
            masks[name] = (np.arange(size) < left).reshape(weights[name].shape)
            left = max(0, left - size)
    return masks


def test_values_of_layers_that_stay_are_kept_in_nnx_and_equinox() -> None:
    for build in (nnx_network, equinox_network):
        model, *inputs = build()
        plan = ift.plan(ift.read_model(model, *inputs), "parallel", "3/4")
        applied = apply(plan, model, *inputs)
        weight: Callable[[Any], Any] = lambda m: getattr(m.stem, "kernel", None) or m.stem.weight  # noqa: E731
        assert np.array_equal(np.asarray(weight(model)), np.asarray(weight(applied)))
        assert applied(*inputs).shape == model(*inputs).shape
        again = apply(plan, model, *inputs)
        pairs = zip(leaves(applied), leaves(again), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)  # seeds decide


def leaves(model: Any) -> list[Any]:
    tree = nnx.state(model) if isinstance(model, nnx.Module) else eqx.filter(model, eqx.is_array)
    return [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(tree)]


def test_a_mask_that_fits_no_weight_is_refused() -> None:
    model, inputs = LinenTransformer(depth=1), TOKENS
    plan = ift.plan(ift.read_model(model, inputs), "none", "3/4")
    with pytest.raises(InputError, match="there is a mask of nothing, and the model has no such weight"):
        measure_applied(plan, model, inputs, masks={"nothing": np.ones(3)})
    with pytest.raises(
        InputError, match=r"the mask of Dense_0.kernel has shape \(3,\), and the weight \(48, 12\)"
    ):
        measure_applied(plan, model, inputs, masks={"Dense_0.kernel": np.ones(3)})


def test_what_is_computed_by_no_layer_keeps_its_weight() -> None:
    class Own(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = x @ self.param("kernel", linen.initializers.ones, (8, 8))
            return linen.Dense(4)(linen.Dense(8)(x))

    x = jax.ShapeDtypeStruct((2, 8), jnp.float32)
    plan = ift.plan(ift.read_model(Own(), x), "parallel", "1/2", keep_dense="none")
    own, *rest = plan.layers
    assert own.reason == "Own uses this weight directly, so the layer cannot be replaced"
    assert all(layer.member_size == 2 for layer in rest)
    assert audit(plan, Own(), x).passed


def test_ift_audit_takes_jax_models() -> None:
    model = LinenTransformer(depth=1)
    plan = ift.plan(ift.read_model(model, TOKENS), "wide", "3/4")
    assert ift.audit(plan, model=model).ratio == Fraction(1)
    assert ift.audit(apply(plan, model), plan).passed


@pytest.mark.parametrize(
    ("build", "macs", "widths"),
    [
        (resnet50, 4_089_184_256, {"width": 128}),
        (vit, 17_563_828_224, {"width": 1536, "hidden": 6144}),
    ],
)
def test_wide_and_parallel_plans_of_networks_in_use(build: Any, macs: int, widths: dict[str, int]) -> None:
    spec = ift.read_model(build)
    assert spec.macs == macs
    for family, sizes in (("wide", widths), ("parallel", {})):
        plan = ift.plan(spec, family, "3/4")
        assert plan.widths == sizes
        report = audit(plan, build)
        assert (report.verdict.value, report.problems) == ("passed", ())
        assert plan.residual_macs in range(max(layer.positions for layer in plan.layers))


class Normed(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(4)(linen.BatchNorm(use_running_average=True)(linen.Dense(8)(x)))


def test_statistics_are_no_parameters() -> None:
    kernels, biases, norm = 8 * 8 + 8 * 4, 8 + 4, 2 * 8
    model = traceable(Normed(), (jax.ShapeDtypeStruct((2, 8), jnp.float32),))
    assert sum(leaf.size for leaf in model.trained().values()) == kernels + biases + norm
    assert sum(leaf.size for leaf in model.weights().values()) == kernels + biases + 2 * norm
    network = nnx.eval_shape(
        lambda: nnx.Sequential(nnx.BatchNorm(8, rngs=nnx.Rngs(0)), nnx.Dropout(0.1, rngs=nnx.Rngs(1)))
    )
    counted = traceable(network, (jax.ShapeDtypeStruct((2, 8), jnp.float32),))
    assert sum(leaf.size for leaf in counted.trained().values()) == norm


def test_a_dense_network_is_no_proof_that_its_plan_was_applied() -> None:
    network = linen.Sequential([linen.Dense(16), linen.Dense(16), linen.Dense(4)])
    x = jax.ShapeDtypeStruct((2, 8), jnp.float32)
    plan = ift.plan(ift.read_model(network, x), None, "3/4")
    report = ift.audit(network, plan)
    assert report.verdict.value == "failed"
    assert "masks lie beside the weights in JAX" in report.problems[-1]
    assert measure_applied(plan, network).passed  # where the plan's own counts are asked for


def test_inputs_of_a_network_may_be_text_or_named() -> None:
    network = linen.Sequential([linen.Dense(16), linen.Dense(16), linen.Dense(4)])
    wanted = ift.read_model(network, jax.ShapeDtypeStruct((2, 8), jnp.float32))
    assert ift.read_model(network, "2x8").macs == wanted.macs
    plan: Any = ift.plan
    assert plan(network, "parallel", "3/4", inputs="2x8").layers == plan(wanted, "parallel", "3/4").layers

    class Two(linen.Module):
        @linen.compact
        def __call__(self, x: Any, scale: Any) -> Any:
            return linen.Dense(4)(x) * scale

    one = jax.ShapeDtypeStruct((2, 8), jnp.float32), jax.ShapeDtypeStruct((2, 1), jnp.float32)
    for given in (one, ("2x8", "2x1"), {"x": "2x8", "scale": one[1]}):
        assert ift.read_model(Two(), inputs=given).macs == 2 * 8 * 4
