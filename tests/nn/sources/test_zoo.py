"""The bundled architectures: published figures, closed forms of our own, and the index."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iftplan.base.errors import MeasureError
from iftplan.models.notation import parse_input
from iftplan.models.zoo.entries import ZOO
from iftplan.models.zoo.specs import zoo_spec
from iftplan.nn.counting.measure import measure
from iftplan.nn.sources.zoo import ARCHITECTURES


def build(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return ARCHITECTURES[name].build().eval()


def torch_macs(name: str) -> int:
    """Multiply-accumulates as torch's own counter sees them."""
    inputs = [torch.empty(i.shape, dtype=getattr(torch, i.dtype), device="meta") for i in ZOO[name].inputs]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(name)(*inputs)
    return counter.get_total_flops() // 2


def attention_stack(layers: int, width: int, tokens: int) -> int:
    """Projections, scores, values and a ×4 MLP of `layers` transformer blocks."""
    return layers * (12 * width * width * tokens + 2 * tokens * tokens * width)


def test_index_and_builders_agree() -> None:
    assert list(ARCHITECTURES) == list(ZOO)
    assert all(architecture.entry is ZOO[name] for name, architecture in ARCHITECTURES.items())
    assert all(entry.name == name and entry.inputs and entry.source for name, entry in ZOO.items())


def test_index_needs_no_framework() -> None:
    code = (
        "import sys, iftplan.models.zoo.entries; print({'torch', 'transformers', 'sympy'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


@pytest.mark.parametrize(
    ("name", "macs"),
    [  # recomputed and published figures, facts of the field
        ("resnet18-cifar", 555_468_800),
        ("resnet18", 1_814_073_344),
        ("resnet34", 3_663_761_408),
        ("resnet50", 4_089_184_256),
    ],
)
def test_residual_networks_cost_what_is_published(name: str, macs: int) -> None:
    assert torch_macs(name) == macs


@pytest.mark.parametrize(
    ("name", "giga"),
    [("mobilenetv2", 0.30), ("mobilevit-s", 2.0), ("vit-b16", 17.56)],
)
def test_published_giga_macs(name: str, giga: float) -> None:
    digits = len(str(giga).partition(".")[2])
    assert round(torch_macs(name) / 1e9, digits) == giga


@pytest.mark.parametrize(
    ("name", "millions"),
    [  # parameter counts as the papers print them
        ("resnet18", 11.7),
        ("resnet34", 21.8),
        ("resnet50", 25.6),
        ("mobilenetv2", 3.5),
        ("mobilevit-s", 5.6),
        ("bert-small", 28.8),
        ("vit-b16", 86.6),
    ],
)
def test_published_parameter_counts(name: str, millions: float) -> None:
    parameters = sum(p.numel() for p in build(name).parameters())
    assert round(parameters / 1e6, 1) == millions


def test_vit_is_its_closed_form() -> None:
    tokens, patches, width = 197, 196, 768
    embedding = patches * 3 * 16 * 16 * width
    assert torch_macs("vit-b16") == embedding + attention_stack(12, width, tokens) + width * 1000


def test_resnet8_is_its_closed_form() -> None:
    """Three stages of one basic block at 32×32, 16×16 and 8×8, 1×1 shortcuts where the width changes."""
    macs = 1024 * 27 * 8 + 1024 * 2 * 9 * 8 * 8
    macs += 256 * (9 * 8 * 16 + 9 * 16 * 16 + 8 * 16)
    macs += 64 * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
    assert torch_macs("resnet8-cifar") == macs + 320 == 3_236_160


def test_resnet20_is_its_closed_form() -> None:
    """Three stages of three basic blocks, twice the channels of ResNet-8."""
    macs = 1024 * 27 * 16 + 1024 * 6 * 9 * 16 * 16
    macs += 256 * (9 * 16 * 32 + 5 * 9 * 32 * 32 + 16 * 32)
    macs += 64 * (9 * 32 * 64 + 5 * 9 * 64 * 64 + 32 * 64)
    assert torch_macs("resnet20-cifar") == macs + 640 == 40_813_184


def test_digits_cnn_is_its_closed_form() -> None:
    assert torch_macs("digits-cnn") == 64 * 9 * 16 + 64 * 9 * 16 * 32 + 16 * 9 * 32 * 32 + 320


def test_gpt_char_has_the_weights_of_its_closed_form() -> None:
    width = 128
    blocks = 4 * (12 * width * width + 13 * width)
    parameters = blocks + (256 + 128) * width + 2 * width  # tied head adds none
    assert sum(p.numel() for p in build("gpt-char").parameters()) == parameters


def test_bert_small_is_its_closed_form() -> None:
    tokens, width, vocabulary = 128, 512, 30522
    head = tokens * width * (width + vocabulary)
    assert torch_macs("bert-small") == attention_stack(4, width, tokens) + head


@pytest.mark.parametrize(
    ("name", "side", "second_stride", "classes"),
    [("mobilenetv2", 112, 2, 1000), ("mobilenetv2-cifar", 32, 1, 100)],
)
def test_mobilenetv2_is_its_closed_form(name: str, side: int, second_stride: int, classes: int) -> None:
    """Table 2 of arXiv 1801.04381, summed independently of any model code, from the positions after the stem on."""
    macs, channels = side * side * 27 * 32, 32
    table = [
        (1, 16, 1, 1),
        (6, 24, 2, second_stride),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
    ]
    for expansion, out, repeats, first_stride in [*table, (6, 320, 1, 1)]:
        for stride in [first_stride] + [1] * (repeats - 1):
            hidden = channels * expansion
            macs += side * side * channels * hidden * (expansion > 1)
            side //= stride
            macs += side * side * hidden * (9 + out)
            channels = out
    macs += side * side * 320 * 1280 + 1280 * classes
    assert torch_macs(name) == macs


def inverted_residual(inputs: int, outputs: int, before: int, after: int) -> int:
    """An expansion by 4 at `before`² positions, 3×3 depthwise and 1×1 convolutions at `after`²."""
    hidden = 4 * inputs
    return before**2 * inputs * hidden + after**2 * hidden * (9 + outputs)


def test_mobilevit_for_cifar_is_its_closed_form() -> None:
    """MobileViT-S as in table 4 of arXiv 2110.02178, at 32×32 positions until the first transformer's stage."""
    macs = 32**2 * 27 * 16 + inverted_residual(16, 32, 32, 32)
    macs += inverted_residual(32, 64, 32, 32) + 2 * inverted_residual(64, 64, 32, 32)
    channels, side = 64, 32
    for outputs, width, depth in ((96, 144, 2), (128, 192, 4), (160, 240, 3)):
        macs += inverted_residual(channels, outputs, side, side // 2)
        channels, side = outputs, side // 2
        positions, patches = side**2, side**2 // 4
        macs += positions * (9 * channels**2 + 2 * channels * width + 9 * 2 * channels**2)
        macs += depth * (positions * (4 + 2 * 2) * width**2 + 4 * 2 * patches**2 * width)
    assert side == 4
    assert torch_macs("mobilevit-s-cifar") == macs + side**2 * 160 * 640 + 640 * 100


def bottlenecks(side: int, classes: int) -> tuple[int, int]:
    """MACs and parameters of a ResNet-50 behind its stem, which leaves 64 channels at `side`² positions."""
    macs, parameters, channels = 0, 0, 64
    for stage, (outputs, depth) in enumerate(((256, 3), (512, 4), (1024, 6), (2048, 3))):
        narrow = outputs // 4
        for block in range(depth):
            before, side = side, side // 2 if block == 0 and stage > 0 else side
            weights = [channels * narrow, 9 * narrow**2 + narrow * outputs]
            weights[1] += channels * outputs * (block == 0)
            macs += before**2 * weights[0] + side**2 * weights[1]
            parameters += sum(weights) + 2 * (2 * narrow + outputs + outputs * (block == 0))
            channels = outputs
    return macs + channels * classes, parameters + (channels + 1) * classes


STEMS = {
    "botnet50": (bottlenecks(56, 1000), 112**2 * 147 * 64, (147 + 2) * 64),
    "botnet50-cifar": (bottlenecks(32, 100), 32**2 * 27 * 64, (27 + 2) * 64),
}


def test_the_bottlenecks_of_resnet50_cost_what_is_published() -> None:
    (macs, parameters), stem, weights = STEMS["botnet50"]
    assert (macs + stem, parameters + weights) == (4_089_184_256, 25_557_032)


@pytest.mark.parametrize(("name", "sides"), [("botnet50", (14, 7, 7)), ("botnet50-cifar", (8, 4, 4))])
def test_botnet_replaces_three_convolutions_by_attention(name: str, sides: tuple[int, ...]) -> None:
    (macs, parameters), stem, weights = STEMS[name]
    macs, parameters = macs + stem, parameters + weights
    heads, head_dim, width = 4, 128, 512
    for side in sides:
        positions = side * side
        macs -= sides[-1] ** 2 * 9 * width * width
        macs += positions * 3 * width * width  # query, key, value
        macs += 2 * positions * positions * width  # scores and mixing
        macs += 2 * heads * positions * side * head_dim  # one relative table per axis
        parameters += (3 - 9) * width * width + 2 * (2 * side - 1) * head_dim
    assert torch_macs(name) == macs
    assert sum(p.numel() for p in build(name).parameters()) == parameters


def test_botnet_attention_is_its_definition() -> None:
    from iftplan.nn.sources.zoo.botnet import RelativeSelfAttention

    torch.manual_seed(0)
    height, width, heads, channels = 3, 4, 2, 8
    attention = RelativeSelfAttention(channels, (height, width), heads).double()
    x = torch.randn(1, channels, height, width, dtype=torch.float64)
    d = channels // heads
    q, k, v = (
        f(x).reshape(heads, d, height, width) for f in (attention.query, attention.key, attention.value)
    )
    expected = torch.empty(heads, d, height, width, dtype=torch.float64)
    for h in range(heads):
        for i in range(height):
            for j in range(width):
                logits = torch.empty(height, width, dtype=torch.float64)
                for a in range(height):
                    for b in range(width):
                        r = attention.relative_height[a - i + height - 1]
                        r = r + attention.relative_width[b - j + width - 1]
                        logits[a, b] = q[h, :, i, j] @ (k[h, :, a, b] + r) / d**0.5
                weights = logits.flatten().softmax(0).reshape(height, width)
                expected[h, :, i, j] = (v[h] * weights).sum((-2, -1))
    torch.testing.assert_close(attention(x), expected.reshape(1, channels, height, width))


def test_botnet_refuses_maps_larger_than_its_tables() -> None:
    with pytest.raises(ValueError, match="16 positions"):
        build("botnet50")(torch.empty(1, 3, 256, 256, device="meta"))


def parts(name: str) -> dict[str, int]:
    """MACs of the first module on each layer's path, from the spec."""
    found: dict[str, int] = {}
    spec = zoo_spec(f"zoo:{name}")
    assert spec is not None
    for weight in spec.layers:
        part = weight.layer.name.partition(".")[0]
        found[part] = found.get(part, 0) + weight.layer.dense_macs
    return found


def basic_blocks(positions: tuple[int, ...]) -> int:
    """The stages of a ResNet-18, each at as many positions."""
    macs, channels = 0, 64
    for outputs, here in zip((64, 128, 256, 512), positions, strict=True):
        shortcut = 0 if channels == outputs else channels * outputs
        macs += here * (9 * channels * outputs + 3 * 9 * outputs**2 + shortcut)
        channels = outputs
    return macs


def test_retinanet_is_its_closed_form() -> None:
    """Sizes of MMDetection's retinanet_r18_fpn, by arithmetic, at 800×1280."""
    c2, c3, c4, c5, p6, p7 = 200 * 320, 100 * 160, 50 * 80, 25 * 40, 13 * 20, 7 * 10
    backbone = 4 * c2 * 147 * 64 + basic_blocks((c2, c3, c4, c5))
    neck = 256 * (c3 * 128 + c4 * 256 + c5 * 512) + 9 * 256 * (256 * (c3 + c4 + c5) + 512 * p6 + 256 * p7)
    head = (c3 + c4 + c5 + p6 + p7) * 9 * 256 * (8 * 256 + 9 * 80 + 9 * 4)
    assert (backbone, neck, head) == (37_011_456_000, 13_651_804_160, 137_800_673_280)
    assert parts("retinanet-r18") == {"backbone": backbone, "neck": neck, "head": head}
    assert torch_macs("retinanet-r18") == backbone + neck + head == 188_463_933_440


def test_deeplabv3plus_is_its_closed_form() -> None:
    """Sizes of MMSegmentation's deeplabv3plus_r18-d8, by arithmetic, at 512×1024."""
    stem, fine, coarse = 256 * 512, 128 * 256, 64 * 128
    backbone = stem * 9 * (3 * 32 + 32 * 32 + 32 * 64) + basic_blocks((fine, coarse, coarse, coarse))
    pyramid = 512 * 128 + coarse * (512 * 128 + 3 * 512 * (9 + 128)) + coarse * 9 * 5 * 128 * 128
    refine = fine * ((128 + 12) * (9 + 128) + 128 * (9 + 128))
    head = pyramid + fine * 64 * 12 + refine + fine * 128 * 19
    assert (backbone, head) == (98_763_276_288, 9_608_560_640)
    assert parts("deeplabv3plus-r18") == {"backbone": backbone, "head": head}
    assert torch_macs("deeplabv3plus-r18") == backbone + head == 108_371_836_928


def test_detection_and_segmentation_give_maps() -> None:
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        found = ARCHITECTURES["retinanet-r18"].build().eval()(images)
        logits = ARCHITECTURES["deeplabv3plus-r18"].build().eval()(images).logits
    sides = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert [tuple(x.shape) for x in found.logits] == [(1, 720, *side) for side in sides]
    assert [tuple(x.shape) for x in found.boxes] == [(1, 36, *side) for side in sides]
    assert logits.shape == (1, 19, 64, 96)


def test_a_classifiers_weights_fit_a_detectors_backbone() -> None:
    """Names and shapes, so that `resnet.…` of a trained ResNet-18 loads as `backbone.…`."""
    trained = {
        name: x.shape for name, x in build("resnet18").state_dict().items() if name.startswith("resnet.")
    }
    detector = build("retinanet-r18").get_submodule("backbone").state_dict()
    assert {f"resnet.{name}": x.shape for name, x in detector.items()} == trained


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "context"),
    [
        ("gpt3-small", 12, 768, 12, 1024),
        ("gpt3-small-2048", 12, 768, 12, 2048),
        ("gpt3-medium", 24, 1024, 16, 1024),
        ("gpt3-1.3b", 24, 2048, 16, 1024),
    ],
)
def test_gpt_sizes_are_the_papers(name: str, layers: int, width: int, heads: int, context: int) -> None:
    model = build(name)
    per_block = 12 * width * width + 13 * width
    parameters = layers * per_block + (50257 + context) * width + 2 * width  # tied head adds none
    assert sum(p.numel() for p in model.parameters()) == parameters
    attention = model.get_submodule("transformer.h.0.attn")
    assert attention.head_dim * heads == width
    assert ZOO[name].inputs[0].shape == (1, context)


def test_a_gpt_is_not_counted_beyond_its_positions() -> None:
    assert measure(build("gpt-char"), (parse_input("1x128:int64"),)).macs
    with pytest.raises(MeasureError, match="129 tokens, but there are positions for 128"):
        measure(build("gpt-char"), (parse_input("1x129:int64"),))
