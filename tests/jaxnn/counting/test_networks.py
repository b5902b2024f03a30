"""Ten networks in JAX cost what their twins in PyTorch do, layer by layer, to the MAC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX, of the extra jax, is not installed")
pytest.importorskip("flax", reason="Flax, of the extra jax, is not installed")
pytest.importorskip("torch")

from flax import nnx

import iftplan as ift
from iftplan.models.spec import ModelSpec
from tests.support.models.jax_zoo.convolutional import TorchUNet, mobilenetv2, resnet50, unet
from tests.support.models.jax_zoo.recurrent import TorchStateSpace, state_space
from tests.support.models.jax_zoo.transformers import (
    Bert,
    Gpt2,
    Llama,
    Mixture,
    TorchMixer,
    mixer,
    tokens,
    torch_llama,
    torch_mixture,
    vit,
)


def shapes_of(kind: type) -> Any:
    return nnx.eval_shape(lambda: kind(nnx.Rngs(0)))


def of_torch(network: Any, text: str) -> ModelSpec:
    return ift.read_model(network, text, widths=False)


Pair = tuple[Callable[[], tuple[Any, ...]], Callable[[], ModelSpec]]

NETWORKS: dict[str, Pair] = {
    "ResNet-50": (resnet50, lambda: ift.read_model("zoo:resnet50")),
    "MobileNetV2": (mobilenetv2, lambda: ift.read_model("zoo:mobilenetv2")),
    "ViT-B/16": (vit, lambda: ift.read_model("zoo:vit-b16")),
    "MLP-Mixer": (mixer, lambda: of_torch(TorchMixer(), "2x3x32x32")),
    "BERT": (lambda: (shapes_of(Bert), tokens(1, 128)), lambda: ift.read_model("zoo:bert-small")),
    "GPT-2": (lambda: (shapes_of(Gpt2), tokens(1, 1024)), lambda: ift.read_model("zoo:gpt3-small")),
    "Llama": (lambda: (shapes_of(Llama), tokens(2, 16)), lambda: of_torch(torch_llama(), "2x16:int64")),
    "mixture": (lambda: (Mixture(), tokens(2, 16)), lambda: of_torch(torch_mixture(), "2x16:int64")),
    "state space": (state_space, lambda: of_torch(TorchStateSpace(), "2x12x16")),
    "U-Net": (unet, lambda: of_torch(TorchUNet(), "2x3x32x32")),
}


def costs(spec: ModelSpec) -> list[int]:
    """MACs of every layer that has some, a layer of several products being one, in order of size."""
    return sorted(weight.layer.dense_macs for weight in spec.layers if weight.layer.dense_macs)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_costs_what_its_twin_does(name: str) -> None:
    in_jax, in_torch = NETWORKS[name]
    model, *arguments = in_jax()
    found, expected = ift.read_model(model, *arguments, widths=False), in_torch()
    assert found.macs == expected.macs
    assert sum(p.macs for p in found.products) == sum(p.macs for p in expected.products)
    assert sorted(costs(found)) == sorted(costs(expected))
