"""The command line's notations: layers, `KIND[:IN-OUT][@POSITIONS][,key=value…]`, and inputs, `[NAME=]1x3x32x32[:dtype]`."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from math import prod

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.base.units import refuse_long
from iftplan.models.spec import InputSpec, Kind, LayerSpec

_SHAPE = re.compile(
    r"(?P<kind>[a-z]+)(?P<rest>[0-9dx]*)(?::(?P<channels>[^@,]*))?(?:@(?P<positions>[^,]*))?(?P<keys>(?:,.*)?)"
)
_KERNEL = re.compile(r"(?:(?P<dims>[123])d)?(?P<sizes>\d+(?:x\d+)*)")
_KINDS = ("linear", "conv", "dwconv", "convt", "dwconvt", "embedding", "attention", "norm", "activation")
_KEYS = {"stride": 1, "groups": 1, "heads": 1, "experts": 1}
_TAKES = {
    "stride": ("conv", "dwconv", "convt", "dwconvt"),
    "groups": ("linear", "conv", "convt"),
    "heads": ("attention",),
    "experts": ("linear",),
}
_DIGITS = 12  # of a size: a million times the widest layer in use
_EXAMPLES = "linear:768-3072, conv3x3:64-128@16x16,stride=2, conv1d5:32-64@100, dwconv3x3:192@14x14"


def parse_layer(text: str, *, digits: int = _DIGITS) -> LayerSpec:
    """Read one layer, for instance `conv3x3:64-128@16x16` or, with symbolic channels, `conv3x3`.

    Positions are *output* positions; missing means 1. `experts=4` is a stack of four linear layers, of which every
    position meets one. A transposed convolution applies its kernel once
    per *input* position. Its output is taken to be `stride` times its input in every dimension, as padding and output
    padding make it, so there each size must be divisible by the stride; other paddings name the input's positions and no stride.

    Args:
        text: the notation.
        digits: the most that a number may have.

    Raises:
        InputError: says which part cannot be read, and gives the nearest form that can.

    Example:
        >>> layer = parse_layer("conv3x3:64-128@16x16,stride=2")
        >>> layer.fan_in, layer.fan_out, layer.positions
        (576, 128, 256)
    """
    text = text.strip()
    refuse_long(text, f"layer {text!r}", digits)
    match = _SHAPE.fullmatch(text)
    if not match:
        raise InputError(
            f"layer {text!r} cannot be read; a layer is KIND[:IN-OUT][@POSITIONS][,key=value], such as {_EXAMPLES}."
        )
    kind, kernel = _kind(text, match["kind"], match["rest"])
    keys = _keys(text, match["keys"], match["kind"])
    depthwise = match["kind"].startswith("dw")
    square = depthwise or kind in (Kind.ATTENTION, Kind.NORM, Kind.ACTIVATION)
    in_channels, out_channels = _channels(text, match["channels"], square)
    groups = (in_channels or 1) if depthwise else keys["groups"]
    positions = _positions(text, match["positions"], kind, keys["stride"])
    layer = LayerSpec(
        text,
        kind,
        in_channels,
        out_channels,
        kernel,
        groups,
        positions,
        depthwise,
        0 if kind is not Kind.ATTENTION else keys["heads"],
        keys["experts"],
    )
    _check_divisible(layer)
    return layer


def _kind(text: str, word: str, rest: str) -> tuple[Kind, tuple[int, ...]]:
    if word not in _KINDS:
        meant = did_you_mean(word, _KINDS, cutoff=0.4)
        raise InputError(f"layer {text!r}: unknown kind {word!r}.{meant} Kinds are {', '.join(_KINDS)}.")
    if word.endswith(("conv", "convt")):
        kernel = _kernel(text, word, rest)
        return Kind(f"conv{'_transpose' if word.endswith('t') else ''}{len(kernel)}d"), kernel
    if rest:
        raise InputError(
            f"layer {text!r}: {word} takes no kernel, but {rest!r} was given; write {word}:IN-OUT."
        )
    return Kind(word), ()


def _kernel(text: str, word: str, rest: str) -> tuple[int, ...]:
    match = _KERNEL.fullmatch(rest)
    if not match:
        raise InputError(
            f"layer {text!r}: a convolution needs its kernel, as in {word}3x3, {word}1d5 or {word}3d3x3x3."
        )
    kernel = tuple(map(int, match["sizes"].split("x")))
    dims = int(match["dims"] or len(kernel))
    if len(kernel) != dims or dims > 3:
        near = f"{word}{min(dims, 3)}d{'x'.join([str(kernel[0])] * min(dims, 3))}"
        raise InputError(
            f"layer {text!r}: the kernel {match['sizes']} has {len(kernel)} sizes where a convolution of {dims} dimensions (at most 3) has {dims}; write {near}."
        )
    if dims == 1 and not match["dims"]:
        raise InputError(
            f"layer {text!r}: the kernel {kernel[0]} has one size; write {word}{kernel[0]}x{kernel[0]} for two dimensions or {word}1d{kernel[0]} for one."
        )
    if not all(kernel):
        raise InputError(f"layer {text!r}: a kernel size of 0 leaves no weights; the smallest is 1.")
    return kernel


def _channels(text: str, channels: str | None, square: bool) -> tuple[int | None, int | None]:
    if channels is None:
        return None, None
    form = "N or N-N" if square else "IN-OUT"
    parts = channels.split("-")
    if (
        not all(p.isascii() and p.isdigit() for p in parts)
        or len(parts) > 2
        or (len(parts) == 1 and not square)
    ):
        raise InputError(
            f"layer {text!r}: channels {channels!r} are not {form}, two whole numbers such as 64-128."
        )
    sizes = [int(p) for p in parts]
    if 0 in sizes:
        raise InputError(f"layer {text!r}: a layer needs at least 1 channel, not 0.")
    if square and sizes[0] != sizes[-1]:
        raise InputError(
            f"layer {text!r}: this kind of layer has as many outputs as inputs; write :{sizes[0]}."
        )
    return sizes[0], sizes[-1]


def _positions(text: str, given: str | None, kind: Kind, stride: int) -> int:
    sizes = ("1" if given is None else given).split("x")
    if not all(p.isascii() and p.isdigit() and int(p) for p in sizes):
        raise InputError(
            f"layer {text!r}: positions {given!r} are not whole numbers above 0; write @16x16, or @100 for 100 tokens."
        )
    if kind in (Kind.EMBEDDING, Kind.NORM, Kind.ACTIVATION):
        return 0
    found = [int(size) for size in sizes]
    if given is None or not kind.transposed or stride == 1:
        return prod(found)
    return _inputs_of_transposed(text, found, kind.spatial_dims, stride)


def _inputs_of_transposed(text: str, sizes: list[int], dims: int, stride: int) -> int:
    """Input positions of a transposed convolution, from those of its output: samples, if any, then one size a dimension."""
    total = prod(sizes)
    if 1 < len(sizes) < dims:
        raise InputError(
            f"layer {text!r}: a transposed convolution of {dims} dimensions has {dims} output sizes; {len(sizes)} were given. Write all, or their product."
        )
    units = [stride**dims] if len(sizes) == 1 else [1] * (len(sizes) - dims) + [stride] * dims
    if all(size % unit == 0 for size, unit in zip(sizes, units, strict=True)):
        return int(total // stride**dims)
    near = "x".join(
        str(max(1, round(Fraction(size, unit))) * unit) for size, unit in zip(sizes, units, strict=True)
    )
    shown = "x".join(map(str, sizes))
    raise InputError(
        f"layer {text!r}: {shown} output positions are not a multiple of stride {stride} in {dims} "
        f"dimensions; the nearest is @{near}. For other paddings, give the input positions and leave out the "
        "stride."
    )


def _keys(text: str, given: str, word: str) -> dict[str, int]:
    values = dict(_KEYS)
    allowed = [key for key in _KEYS if word in _TAKES[key]]
    items = [item.partition("=") for item in given.split(",")[1:]]
    for key, _, value in items:
        if [other for other, _, _ in items].count(key) > 1:
            raise InputError(f"layer {text!r}: {key!r} is given more than once; give it once.")
        if key not in _KEYS:
            raise InputError(
                f"layer {text!r}: unknown key {key!r}; keys are {', '.join(_KEYS)}, written as ,groups=4."
            )
        if key not in allowed:
            takes = f"its keys are {', '.join(allowed)}" if allowed else "it takes no keys"
            raise InputError(
                f"layer {text!r}: {word} has no {key}; {takes}. {key} belongs to {', '.join(_TAKES[key])}."
            )
        if not (value.isascii() and value.isdigit() and int(value)):
            raise InputError(f"layer {text!r}: {key}={value!r} is not a whole number above 0.")
        values[key] = int(value)
    return values


def _check_divisible(layer: LayerSpec) -> None:
    if layer.in_channels is None or layer.out_channels is None:
        return
    for what, by in (("groups", layer.groups), ("heads", layer.heads)):
        for channels in (layer.in_channels, layer.out_channels):
            if by and channels % by:
                near = max(1, round(channels / by)) * by
                raise InputError(
                    f"layer {layer.name!r}: {channels} channels cannot be divided into {by} {what}; the nearest number "
                    f"that can is {near}."
                )


def layer_notation(layer: LayerSpec) -> str:
    """Write a layer in the notation `parse_layer` reads.

    Example:
        >>> layer_notation(parse_layer("dwconv3x3:192@14x14"))
        'dwconv3x3:192@196'
    """
    kind = layer.kind.value
    depthwise = layer.depthwise and layer.in_channels == layer.out_channels
    if layer.kind.spatial_dims:
        word = ("dw" if depthwise else "") + ("convt" if layer.kind.transposed else "conv")
        dims = "" if layer.kind.spatial_dims == 2 else f"{layer.kind.spatial_dims}d"
        kind = word + dims + "x".join(map(str, layer.kernel))
    if layer.symbolic:
        channels = ""
    elif depthwise or layer.kind in (Kind.ATTENTION, Kind.NORM, Kind.ACTIVATION):
        channels = f":{layer.out_channels}"
    else:
        channels = f":{layer.in_channels}-{layer.out_channels}"
    positions = f"@{layer.positions}" if layer.positions > 1 else ""
    groups = f",groups={layer.groups}" if layer.groups > 1 and not depthwise else ""
    heads = f",heads={layer.heads}" if layer.heads > 1 else ""
    experts = f",experts={layer.experts}" if layer.experts > 1 else ""
    return f"{kind}{channels}{positions}{groups}{heads}{experts}"


def canonical(layer: LayerSpec) -> LayerSpec:
    """The layer as its notation reads back: without a name, and with what the notation does not tell at its default.

    Example:
        >>> canonical(LayerSpec("fc", Kind.LINEAR, 64, 10)) == canonical(parse_layer("linear:64-10@1"))
        True
    """
    looked_up = layer.kind in (Kind.EMBEDDING, Kind.NORM, Kind.ACTIVATION)
    return replace(
        layer,
        name="",
        positions=0 if looked_up else max(1, layer.positions),
        depthwise=layer.depthwise and layer.in_channels == layer.out_channels,
        heads=max(1, layer.heads) if layer.kind is Kind.ATTENTION else 0,
    )


_INPUT = re.compile(
    r"(?:(?P<name>(?:[A-Za-z_]\w*|\d+(?=\.))(?:\.\w+)*)=)?(?:(?P<shape>\d+(?:x\d+)*|scalar)(?::(?P<dtype>[a-z]+\d*))?|(?P<value>.+))"
)
_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.?\d+e[-+]?\d+|\.\d+|\d+\.\d*e[-+]?\d+|inf)")

_WHOLE = re.compile(r"-?\d+")


def parse_input(text: str) -> InputSpec:
    """Read one input of a model: a tensor such as `1x3x32x32`, `1x128:int64` or `scalar`, or a plain value such as `True`.

    By keyword `input_ids=1x128:int64`, `wide=True`, `steps=int:5`, `rate=0.5`, `mode=str:train`; a part of a dictionary or
    list as `batch.image=1x3x32x32` or `images.0=3x32x32`.

    Raises:
        InputError: it cannot be read, or a size is 0.

    Example:
        >>> parse_input("input_ids=1x128:int64")
        InputSpec(shape=(1, 128), dtype='int64', name='input_ids')
        >>> parse_input("wide=True").value
        True
    """
    match = _INPUT.fullmatch(text.strip())
    dtype = _value(match["value"]) if match and match["value"] else None
    if not match or (match["value"] and dtype is None):
        raise InputError(
            f"input {text!r} cannot be read; write sizes joined by x, as in 1x3x224x224, 1x128:int64 or input_ids=1x128:int64, "
            "or a value, as in wide=True, steps=int:5, rate=0.5 or mode=str:train."
        )
    if dtype is not None:
        return InputSpec((), dtype, match["name"])
    refuse_long(text, f"input {text!r}", _DIGITS)
    shape = () if match["shape"] == "scalar" else tuple(map(int, match["shape"].split("x")))
    if not all(shape):
        raise InputError(f"input {text!r} has a size of 0, so nothing would be computed; the smallest is 1.")
    return InputSpec(shape, match["dtype"] or "float32", match["name"])


def _value(text: str) -> str | None:
    """A plain value as `InputSpec.dtype` holds it; None if it is none."""
    if text in ("True", "False", "None"):
        return text
    if text.lower() in ("true", "false"):
        return text.capitalize()
    if text.startswith("str:"):
        return text
    number = text.removeprefix("float:")
    if _FLOAT.fullmatch(number) or (number != text and _WHOLE.fullmatch(number)):
        return f"float:{float(number)!r}"
    whole = text.removeprefix("int:")
    if whole != text and _WHOLE.fullmatch(whole) and len(whole) <= _DIGITS:
        return f"int:{int(whole)}"
    return None
