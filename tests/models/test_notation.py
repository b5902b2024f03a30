"""The notations of layers and inputs: round trips, and what a mistake is answered with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan.base.errors import InputError
from iftplan.models.notation import canonical, layer_notation, parse_input, parse_layer
from iftplan.models.spec import InputSpec, Kind, LayerSpec
from tests.support.layer_strategies import layers


@settings(max_examples=300, deadline=None)
@given(layers)
def test_every_layer_reads_back_from_its_notation(layer: LayerSpec) -> None:
    text = layer_notation(layer)
    assert parse_layer(text) == replace(layer, name=text)
    assert layer_notation(parse_layer(f"  {text} ")) == text == str(layer)


@settings(max_examples=300, deadline=None)
@given(layers, st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_a_canonical_layer_is_what_its_notation_reads_back_as(
    layer: LayerSpec, depthwise: bool, positions: int, heads: int
) -> None:
    """Whatever else a layer says of itself that the notation does not tell."""
    each_alone = layer.kind.spatial_dims > 0 and layer.groups == layer.in_channels
    layer = replace(layer, depthwise=depthwise and each_alone, positions=positions)
    text = layer_notation(layer)
    if layer.kind is not Kind.ATTENTION:
        layer = replace(layer, heads=heads)
    assert canonical(layer) == replace(parse_layer(text), name="")


@given(layers)
def test_symbolic_layers_read_back(layer: LayerSpec) -> None:
    symbolic = replace(
        layer, in_channels=None, out_channels=None, groups=1, positions=min(layer.positions, 1)
    )
    text = layer_notation(symbolic)
    assert ":" not in text
    assert parse_layer(text) == replace(symbolic, name=text)


def test_a_depthwise_layer_with_several_outputs_a_channel_shows_both_counts() -> None:
    layer = LayerSpec("", Kind.CONV2D, 8, 16, (3, 3), 8, 49, depthwise=True)
    assert layer_notation(layer) == "conv3x3:8-16@49,groups=8"
    assert parse_layer(layer_notation(layer)).dense_macs == layer.dense_macs


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("linear:768-3072", LayerSpec("", Kind.LINEAR, 768, 3072)),
        ("conv3x3", LayerSpec("", Kind.CONV2D, None, None, (3, 3))),
        ("conv3x3:64-128@16x16,stride=2", LayerSpec("", Kind.CONV2D, 64, 128, (3, 3), positions=256)),
        ("conv1d5:32-64@100", LayerSpec("", Kind.CONV1D, 32, 64, (5,), positions=100)),
        ("conv3d3x3x3:8-16@4x8x8", LayerSpec("", Kind.CONV3D, 8, 16, (3, 3, 3), positions=256)),
        ("conv3x1x1:8-16", LayerSpec("", Kind.CONV3D, 8, 16, (3, 1, 1))),
        ("dwconv3x3:192@14x14", LayerSpec("", Kind.CONV2D, 192, 192, (3, 3), 192, 196, depthwise=True)),
        ("dwconv3x3:192-192", LayerSpec("", Kind.CONV2D, 192, 192, (3, 3), 192, depthwise=True)),
        ("conv3x3:64-64@8x8,groups=4", LayerSpec("", Kind.CONV2D, 64, 64, (3, 3), 4, 64)),
        ("convt2x2:8-4@6x6,stride=2", LayerSpec("", Kind.CONV_TRANSPOSE2D, 8, 4, (2, 2), positions=9)),
        (
            "dwconvt4x4:6@8x8,stride=2",
            LayerSpec("", Kind.CONV_TRANSPOSE2D, 6, 6, (4, 4), 6, 16, depthwise=True),
        ),
        ("attention:64@10,heads=4", LayerSpec("", Kind.ATTENTION, 64, 64, positions=10, heads=4)),
        ("embedding:50257-768@1024", LayerSpec("", Kind.EMBEDDING, 50257, 768, positions=0)),
        ("norm:64", LayerSpec("", Kind.NORM, 64, 64, positions=0)),
    ],
)
def test_the_notation_of_the_manual(text: str, layer: LayerSpec) -> None:
    assert parse_layer(text) == replace(layer, name=text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a layer is KIND[:IN-OUT]"),
        ("Linear:3-4", "a layer is KIND"),
        ("linear 3-4", "a layer is KIND"),
        ("lineer:3-4", "Did you mean 'linear'?"),
        ("cnv3x3:3-4", "Did you mean 'conv'?"),
        ("lstm:3-4", "Kinds are linear, conv"),
        ("linear3:3-4", "linear takes no kernel, but '3' was given; write linear:IN-OUT"),
        ("conv:3-4", "needs its kernel, as in conv3x3"),
        ("convt:3-4", "needs its kernel, as in convt3x3"),
        ("conv3:3-4", "write conv3x3 for two dimensions or conv1d3 for one"),
        ("conv3xx3:3-4", "needs its kernel"),
        (
            "conv2d3:3-4",
            "the kernel 3 has 1 sizes where a convolution of 2 dimensions (at most 3) has 2; write conv2d3x3",
        ),
        ("conv3x3x3x3:3-4", "write conv3d3x3x3"),
        ("conv0x3:3-4", "a kernel size of 0 leaves no weights; the smallest is 1"),
        ("linear:3", "channels '3' are not IN-OUT"),
        ("linear:3-4-5", "channels '3-4-5' are not IN-OUT"),
        ("linear:-3-4", "are not IN-OUT"),
        ("linear:3.5-4", "are not IN-OUT"),
        ("linear:a-b", "channels 'a-b' are not IN-OUT, two whole numbers such as 64-128"),
        ("linear:", "channels '' are not IN-OUT"),
        ("linear:0-4", "a layer needs at least 1 channel, not 0"),
        ("linear:²-4", "are not IN-OUT"),
        ("dwconv3x3:8-16", "as many outputs as inputs; write :8"),
        ("attention:8-16", "as many outputs as inputs; write :8"),
        ("conv3x3:3-4@0", "positions '0' are not whole numbers above 0"),
        ("conv3x3:3-4@8x", "positions '8x' are not whole numbers"),
        ("conv3x3:3-4@-8", "positions '-8' are not"),
        (
            "convt2x2:8-4@7x7,stride=2",
            "7x7 output positions are not a multiple of stride 2 in 2 dimensions; the nearest is @8x8",
        ),
        ("convt2x4:8-6@33x16,stride=2", "33x16 output positions are not a multiple of stride 2"),
        ("convt2x4:8-6@33x16,stride=2", "give the input positions and leave out the stride"),
        ("convt2x4:8-6@4x33x16,stride=2", "the nearest is @4x32x16"),
        ("convt3x3:8-6@1x64,stride=2", "the nearest is @2x64"),
        ("convt1x1:8-6@4x8,stride=3", "the nearest is @3x9"),
        ("convt1d4:8-6@33,stride=2", "33 output positions are not a multiple of stride 2 in 1 dimensions"),
        ("dwconvt3d3x3x3:8@8x8x9,stride=2", "the nearest is @8x8x8"),
        ("convt3d3x3x3:8-6@8x64,stride=2", "3 dimensions has 3 output sizes; 2 were given"),
        (
            "linear:8-6@4,stride=2",
            "linear has no stride; its keys are groups, experts. stride belongs to conv, dwconv",
        ),
        ("linear:8-6,heads=2", "linear has no heads"),
        (
            "conv3x3:8-6@4x4,experts=2",
            "conv has no experts; its keys are stride, groups. experts belongs to linear",
        ),
        ("dwconv3x3:8,groups=4", "dwconv has no groups; its keys are stride"),
        ("attention:8,groups=2", "attention has no groups; its keys are heads"),
        ("norm:8,groups=2", "norm has no groups; it takes no keys"),
        ("embedding:8-4@many", "positions 'many' are not whole numbers above 0"),
        ("conv3x3:3-4,padding=1", "unknown key 'padding'; keys are stride, groups, heads"),
        ("conv3x3:3-4,groups=0", "groups='0' is not a whole number above 0"),
        ("conv3x3:3-4,groups", "groups='' is not a whole number above 0"),
        (
            "conv3x3:64-64,groups=3",
            "64 channels cannot be divided into 3 groups; the nearest number that can is 63",
        ),
        (
            "conv3x3:6-4,groups=3",
            "4 channels cannot be divided into 3 groups; the nearest number that can is 3",
        ),
        (
            "attention:64,heads=5",
            "64 channels cannot be divided into 5 heads; the nearest number that can is 65",
        ),
    ],
)
def test_a_layer_that_cannot_be_read_says_what_was_given_and_what_can_be(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_layer(text)
    assert repr(text) in str(caught.value)
    assert says in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="convlineardwt0123xd:-@,=groupstride. ", max_size=30))
def test_any_text_is_a_layer_or_an_input_error(text: str) -> None:
    try:
        layer = parse_layer(text)
    except InputError:
        return
    assert parse_layer(layer_notation(layer)) == replace(layer, name=layer_notation(layer))


inputs = st.builds(
    InputSpec,
    st.lists(st.integers(1, 4096), min_size=1, max_size=5).map(tuple),
    st.sampled_from(("float32", "int64", "bfloat16", "bool")),
    st.sampled_from((None, "input_ids", "x", "_mask2")),
)


@given(inputs)
def test_every_input_reads_back_from_its_notation(value: InputSpec) -> None:
    assert parse_input(str(value)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write sizes joined by x"),
        ("1,3,32,32", "write sizes joined by x"),
        ("1x3x", "write sizes joined by x"),
        ("1x-3", "write sizes joined by x"),
        ("1x3:", "write sizes joined by x"),
        ("2ids=1x3", "write sizes joined by x"),
        ("ids=", "input_ids=1x128:int64"),
        ("1x0x3", "a size of 0, so nothing would be computed; the smallest is 1"),
    ],
)
def test_an_input_that_cannot_be_read_says_what_was_given_and_what_can_be(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_input(text)
    assert repr(text) in str(caught.value)
    assert says in str(caught.value)


_MODULES = {1: "ConvTranspose1d", 2: "ConvTranspose2d", 3: "ConvTranspose3d"}


@settings(max_examples=60, deadline=None)
@given(
    layers.filter(lambda layer: layer.kind.transposed),
    st.integers(1, 3),
    st.lists(st.integers(1, 4), min_size=3, max_size=3),
    st.integers(1, 2),
)
def test_a_transposed_convolution_costs_what_the_real_layer_of_that_output_costs(
    layer: LayerSpec, stride: int, image: list[int], batch: int
) -> None:
    """PyTorch finds the paddings of an output that is `stride` times the input, and its own counter the MACs."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    dims = layer.kind.spatial_dims
    outputs = [size * stride for size in image[:dims]]
    overlaps = [k - stride for k in layer.kernel]
    paddings = [max(0, -(-over // 2)) for over in overlaps]
    extra = [2 * p - over for p, over in zip(paddings, overlaps, strict=True)]
    if max(extra) >= max(stride, 1):
        return  # an even kernel at stride 1: no padding keeps the size
    text = layer_notation(replace(layer, positions=1)).partition(",")
    sizes = "x".join(map(str, (batch, *outputs)))
    keys = f",stride={stride}" + (f",{text[2]}" if text[2] else "")
    with torch.device("meta"):
        module = getattr(torch.nn, _MODULES[dims])(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            stride,
            paddings,
            extra,
            layer.groups,
            bias=False,
        )
        x = torch.empty(batch, layer.in_channels, *image[:dims])
        with FlopCounterMode(display=False) as counter:
            out = module(x)
    assert list(out.shape[2:]) == outputs
    # the counter of PyTorch knows groups by the weight's shape
    assert parse_layer(f"{text[0]}@{sizes}{keys}").dense_macs == counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("text", "module", "shape"),
    [
        ("linear:7-5@6", lambda nn: nn.Linear(7, 5, bias=False), (2, 3, 7)),
        ("conv1d3:4-6@2x5,stride=2", lambda nn: nn.Conv1d(4, 6, 3, stride=2, bias=False), (2, 4, 11)),
        (
            "conv2x4:8-6@5x4,stride=2,groups=2",
            lambda nn: nn.Conv2d(8, 6, (2, 4), stride=2, groups=2, bias=False),
            (1, 8, 10, 10),
        ),
        ("conv3d1x2x3:4-6@2x3x2", lambda nn: nn.Conv3d(4, 6, (1, 2, 3), bias=False), (1, 4, 2, 4, 4)),
        (
            "dwconv3x3:6@4x4,stride=2",
            lambda nn: nn.Conv2d(6, 6, 3, stride=2, dilation=2, groups=6, bias=False),
            (1, 6, 11, 11),
        ),
        # a kernel that is smaller than its stride: two thirds of the outputs are never written to
        ("convt1d1:4-6@12,stride=3", lambda nn: nn.ConvTranspose1d(4, 6, 1, 3, 0, 2, bias=False), (1, 4, 4)),
        (
            "convt2x4:8-6@32x16,stride=2",
            lambda nn: nn.ConvTranspose2d(8, 6, (2, 4), 2, (0, 1), bias=False),
            (1, 8, 16, 8),
        ),
        # its output is 33x33: the input's positions say it
        ("convt3x3:8-6@16x16", lambda nn: nn.ConvTranspose2d(8, 6, 3, 2, bias=False), (1, 8, 16, 16)),
    ],
)
def test_every_kind_costs_what_a_real_layer_costs(
    text: str, module: Callable[..., Any], shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module(torch.nn)(torch.empty(shape))
    assert parse_layer(text).dense_macs == counter.get_total_flops() // 2
