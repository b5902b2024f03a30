"""The bundled networks are transformers', module by module and bit by bit: fingerprints, initial weights, outputs, gradients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
import iftplan.nn as ift_nn
from iftplan.base.errors import InputError
from iftplan.models.zoo.entries import ZOO
from iftplan.nn.layers.nonlinearity import host_of
from iftplan.nn.meta.copies import check_ties
from iftplan.nn.meta.fingerprint import fingerprint
from iftplan.nn.sources import build
from iftplan.nn.sources.zoo import ARCHITECTURES
from iftplan.nn.sources.zoo.bert import BertForMaskedLM, BertSizes
from iftplan.nn.sources.zoo.gpt2 import GPT2LMHeadModel, GPT2Sizes
from iftplan.nn.sources.zoo.resnet import ResNetBottleNeckLayer, ResNetForImageClassification, ResNetSizes
from iftplan.nn.sources.zoo.vit import ViTForImageClassification, ViTSizes
from tests.support.models.zoo_originals import ORIGINALS, bert, gpt, resnet, vit

Build = Callable[[], nn.Module]


def named(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]


def test_all_but_three_have_an_original() -> None:
    assert {*ORIGINALS, "digits-cnn", "retinanet-r18", "deeplabv3plus-r18"} == set(ZOO)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_structure_is_the_originals(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = ARCHITECTURES[name].build(), ORIGINALS[name]()
    assert fingerprint(ours) == fingerprint(theirs)
    assert named(ours.state_dict()) == named(theirs.state_dict())
    assert named(dict(ours.named_buffers())) == named(dict(theirs.named_buffers()))
    everywhere = [dict(m.named_parameters(remove_duplicate=False)) for m in (ours, theirs)]
    assert named(everywhere[0]) == named(everywhere[1])
    for (_, module), (path, original) in zip(ours.named_modules(), theirs.named_modules(), strict=True):
        if isinstance(original, nn.Conv2d | nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.Dropout):
            assert repr(module) == repr(original), path
    inside = [type(host_of(model).activation).__name__ for model in (ours, theirs)]
    assert inside[0] == inside[1]


IMAGE, TEXT = (2, 3, 32, 32), (2, 19)

SMALL: dict[str, tuple[Build, Build, tuple[int, ...]]] = {
    "resnet8-cifar": (ARCHITECTURES["resnet8-cifar"].build, ORIGINALS["resnet8-cifar"], IMAGE),
    "bottlenecks": (
        lambda: ResNetForImageClassification(ResNetSizes(ResNetBottleNeckLayer, (2, 1), (16, 32), stem=8), 7),
        lambda: resnet("bottleneck", (2, 1), (16, 32), 7, stem=8),
        IMAGE,
    ),
    "mobilenetv2": (ARCHITECTURES["mobilenetv2"].build, ORIGINALS["mobilenetv2"], (2, 3, 45, 64)),
    "mobilevit-s": (ARCHITECTURES["mobilevit-s"].build, ORIGINALS["mobilevit-s"], (2, 3, 96, 64)),
    "bert": (
        lambda: BertForMaskedLM(BertSizes(layers=2, width=32, heads=4)),
        lambda: bert(layers=2, width=32, heads=4),
        TEXT,
    ),
    "gpt-char": (ARCHITECTURES["gpt-char"].build, ORIGINALS["gpt-char"], TEXT),
    "vit": (
        lambda: ViTForImageClassification(ViTSizes(layers=2, width=32, heads=4, patch=8, side=32), 7),
        lambda: vit(layers=2, width=32, heads=4, patch=8, side=32, classes=7),
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_computes_what_the_original_does(name: str) -> None:
    ours, theirs, shape = SMALL[name]
    compare(ours, theirs, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ORIGINALS if name not in ("gpt3-medium", "gpt3-1.3b")])
def test_every_network_computes_what_the_original_does(name: str) -> None:
    (inputs,) = ZOO[name].inputs
    shape = (2, 64) if inputs.dtype == "int64" else (2, *inputs.shape[1:])
    compare(ARCHITECTURES[name].build, ORIGINALS[name], shape)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1024, 2048])
def test_large_gpts_of_two_layers_do_too(width: int) -> None:
    compare(
        lambda: GPT2LMHeadModel(GPT2Sizes(layers=2, width=width, heads=16)),
        lambda: gpt(layers=2, width=width, heads=16),
        TEXT,
    )


def compare(ours: Build, theirs: Build, shape: tuple[int, ...]) -> None:
    found, expected = life(ours, shape), life(theirs, shape)
    assert list(found) == list(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def life(make: Build, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """All tensors of a network from its first draw to one step of training."""
    numbers = torch.Generator().manual_seed(1)
    of_text = len(shape) == 2
    batch = torch.randint(250, shape, generator=numbers) if of_text else torch.randn(shape, generator=numbers)
    told: dict[str, Tensor] = {}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = make()
        told["generator after building"] = torch.get_rng_state()
        told |= {f"initial {name}": tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            told["in evaluation"] = model.eval()(batch).logits
        logits = model.train()(batch).logits
        told["in training"] = logits.detach()
        logits.square().mean().backward()
        told |= {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        told |= {f"{name} in the end": buffer for name, buffer in model.named_buffers()}
        told["generator in the end"] = torch.get_rng_state()
    return told


def test_the_comparison_sees_another_seed() -> None:
    ours, theirs, shape = SMALL["resnet8-cifar"]

    def later() -> nn.Module:
        torch.rand(1)
        return theirs()

    with pytest.raises(AssertionError, match="generator after building"):
        compare(ours, later, shape)


@pytest.mark.parametrize("name", ["bert-small", "gpt-char"])
def test_lost_ties_are_seen_and_tied_again(name: str) -> None:
    moved = ARCHITECTURES[name].build().to("meta")
    with pytest.raises(InputError, match="no longer tied"):
        check_ties(moved)
    moved.tie_weights()
    check_ties(moved)
    assert fingerprint(moved) == fingerprint(build(f"zoo:{name}"))


def test_a_network_that_was_built_by_name_knows_its_inputs() -> None:
    built = build("zoo:resnet8-cifar")
    assert ift.read_model(built, widths=False).inputs == ZOO["resnet8-cifar"].inputs
    copied = ift_nn.apply(
        ift.plan(ift.read_model("zoo:digits-cnn"), "parallel", "3/4"), build("zoo:digits-cnn")
    )
    assert ift.read_model(copied, widths=False).inputs == ZOO["digits-cnn"].inputs


def test_nothing_is_imported_but_torch() -> None:
    code = f"""
import sys
from iftplan.nn.sources import build
for name in {list(ZOO)}:
    build("zoo:" + name)
heavy = {{"transformers", "sklearn", "pandas", "scipy", "PIL", "torchvision", "safetensors", "huggingface_hub"}}
print(*sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
