"""What each operator says about the channels of its tensors: which are the same, split, joined, summed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from types import MappingProxyType
from typing import Any, Final

import torch

from iftplan.errors import InfeasibleError
from iftplan.nn.lockstep import Call, Lockstep, Value
from iftplan.nn.replicas import (
    Channels,
    Size,
    UnmatchedError,
    concatenation,
    cut,
    factors,
    product,
    unify,
)

Slot = tuple[str, int]
"""A parameter and one of its dimensions."""


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of a tensor; `slot` where it is, in the same order, one of a parameter's."""

    channels: Channels
    slot: Slot | None = None


Dims = list[Dim]


@dataclass(frozen=True, slots=True)
class Sum:
    """A contraction over channels that grow.

    Attributes:
        call: its place among the calls.
        operand: the activation, and its dimension.
        channels: what is summed over.
        slot: the weight's dimension; None between two activations.
        repeats: how often these channels come one after the other in the slot (groups).
    """

    call: int
    operand: Value
    axis: int
    channels: Channels
    slot: Slot | None = None
    repeats: Size = (1, 1)


@dataclass(frozen=True, slots=True)
class Followed:
    """The channels of every tensor, and where replicas change a value.

    Attributes:
        sums: contractions, which see every replica.
        scalings: (call, tensor, factor) where the wide model multiplies by another constant.
        averages: (module, channels) of means and variances, which stay where all have as many replicas.
        kept: parameters' dimensions that some operator does not sum over.
    """

    run: Lockstep
    dims: dict[Value, Dims] = field(default_factory=dict)
    sums: list[Sum] = field(default_factory=list)
    scalings: list[tuple[int, Value, float]] = field(default_factory=list)
    averages: list[tuple[str, Channels]] = field(default_factory=list)
    kept: set[Slot] = field(default_factory=set)

    def of(self, value: Value | None) -> Dims:
        """The dimensions of a tensor; none of none."""
        if value is None:
            return []
        if value not in self.dims:
            if any(d != w for d, w in self.run.sizes[value]):
                raise UnmatchedError("a tensor that is no parameter changes its size")
            self.dims[value] = _still(self.run.sizes[value])
        return self.dims[value]

    def grows(self, value: Value) -> bool:
        """Whether one of its dimensions does."""
        return any(d != w for d, w in self.run.sizes[value])

    def keep(self, *dims: Dim) -> None:
        """These are not summed over here."""
        self.kept.update(dim.slot for dim in dims if dim.slot)


def followed(run: Lockstep) -> Followed:
    """Follow the channels through the forward pass.

    Raises:
        InfeasibleError: names the module whose operator does with them what is not known.
    """
    found = Followed(run)
    for name, value in run.named.items():
        if value not in found.dims:
            found.dims[value] = [
                Dim(Channels(size), (name, axis)) for axis, size in enumerate(run.sizes[value])
            ]
    for index, call in enumerate(run.calls):
        if any(map(found.grows, (*call.inputs(), *call.outputs))) or _constants(call):
            _follow(found, call, index)
    return found


def _follow(found: Followed, call: Call, index: int) -> None:
    rule = RULES.get(call.name)
    if rule is None and torch.Tag.pointwise in call.function.tags:
        rule = _pointwise
    try:
        if rule is None:
            raise UnmatchedError("what it does with replicas is not known")
        for value, dims in zip(call.outputs, rule(found, call, index), strict=False):
            found.dims[value] = dims
    except UnmatchedError as error:
        raise InfeasibleError(
            f"{call.module or 'the model'} cannot be started from dense weights: its {call.name} takes channels apart where replicas do not follow ({error})."
        ) from error


def _constants(call: Call) -> list[tuple[str, float, float]]:
    """Numbers that are not the same in both models; whole ones are sizes, but for elementwise operators."""
    kinds = int | float if torch.Tag.pointwise in call.function.tags else float
    pairs = ((name, x, call.wide.get(name)) for name, x in call.dense.items())
    return [(n, x, y) for n, x, y in pairs if isinstance(x, kinds) and isinstance(y, kinds) and x != y]


def _still(sizes: Sequence[Size]) -> Dims:
    if any(d != w for d, w in sizes):
        raise UnmatchedError("a dimension without channels grows")
    return [Dim(Channels(size)) for size in sizes]


# --- elementwise ----------------------------------------------------------------------------------------

_CARRIERS: Final = frozenset({"clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous"})


def _pointwise(found: Followed, call: Call, index: int) -> list[Dims]:
    tensors = call.inputs()
    for name, before, after in _constants(call):
        if call.name not in ("mul", "div") or name != "other":
            raise UnmatchedError(f"the constant {before:g} becomes {after:g}")
        ratio = after / before if call.name == "mul" else before / after
        found.scalings.append((index, call.dense["self"], ratio))
    operands = [found.of(value) for value in tensors]
    if call.name in _CARRIERS and len(operands) == 1:
        return [operands[0]]
    for dims in operands:
        found.keep(*dims)
    return [_broadcast(operands, found.run.sizes[call.outputs[0]])]


def _broadcast(operands: Sequence[Dims], sizes: Sequence[Size]) -> Dims:
    result = []
    for back in range(len(sizes), 0, -1):
        met = [dims[-back].channels for dims in operands if len(dims) >= back]
        met = [channels for channels in met if channels.size != (1, 1)]
        result.append(Dim(reduce(unify, met) if met else Channels(sizes[-back])))
    return result


def _factory(found: Followed, call: Call, index: int) -> list[Dims]:
    if _constants(call):
        raise UnmatchedError("a constant follows the width")
    return [[Dim(Channels(size)) for size in found.run.sizes[value]] for value in call.outputs]


# --- layout ---------------------------------------------------------------------------------------------


def _view(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    parts = factors(product([d.channels for d in dims]), found.run.sizes[call.outputs[0]])
    slots = {id(d.channels.root): d.slot for d in dims if d.slot and d.channels.grows}
    return [[Dim(part, slots.get(id(part.root))) for part in parts]]


def _permute(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    return [[dims[axis] for axis in call.dense["dims"]]]


def _transpose(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = list(found.of(call.dense["self"]))
    a, b = call.dense.get("dim0", 0), call.dense.get("dim1", -1)
    if len(dims) > 1:
        dims[a], dims[b] = dims[b], dims[a]
    return [dims]


def _unsqueeze(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = list(found.of(call.dense["self"]))
    axis = call.dense["dim"] % (len(dims) + 1)
    dims.insert(axis, Dim(Channels((1, 1))))
    return [dims]


def _squeeze(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    axes = _axes(call.dense.get("dim"), len(dims))
    return [[d for i, d in enumerate(dims) if i not in axes or d.channels.size != (1, 1)]]


def _expand(found: Followed, call: Call, index: int) -> list[Dims]:
    dims, sizes = found.of(call.dense["self"]), found.run.sizes[call.outputs[0]]
    new = len(sizes) - len(dims)
    old = [Dim(Channels((1, 1)))] * new + dims
    return [[d if d.channels.size == s else Dim(Channels(s)) for d, s in zip(old, sizes, strict=True)]]


def _as_strided(found: Followed, call: Call, index: int) -> list[Dims]:
    if found.run.sizes[call.outputs[0]] != found.run.sizes[call.dense["self"]]:
        raise UnmatchedError("it reads memory in an order of its own")
    return [found.of(call.dense["self"])]


def _repeat(found: Followed, call: Call, index: int) -> list[Dims]:
    dims, times = (
        found.of(call.dense["self"]),
        list(zip(call.dense["repeats"], call.wide["repeats"], strict=True)),
    )
    old = [Dim(Channels((1, 1)))] * (len(times) - len(dims)) + dims
    return [
        [
            d if t == (1, 1) else Dim(product([Channels(t), d.channels]))
            for d, t in zip(old, times, strict=True)
        ]
    ]


def _without(found: Followed, call: Call, index: int) -> list[Dims]:
    """`select` and `unbind`: one dimension less."""
    dims = found.of(call.dense["self"])
    axis = call.dense.get("dim", 0) % len(dims)
    if dims[axis].channels.grows:
        raise UnmatchedError("single channels are picked out")
    return [dims[:axis] + dims[axis + 1 :]] * len(call.outputs)


def _slice(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = list(found.of(call.dense["self"]))
    axis = call.dense.get("dim", 0) % len(dims)
    channels, size = dims[axis].channels, found.run.sizes[call.outputs[0]][axis]
    if size == channels.size:
        return [dims]
    if call.dense.get("step", 1) != 1 and channels.grows:
        raise UnmatchedError("every so many channels are picked out")
    start = (_start(call.dense, channels.size[0]), _start(call.wide, channels.size[1]))
    rest = (channels.size[0] - start[0] - size[0], channels.size[1] - start[1] - size[1])
    if not channels.grows:
        dims[axis] = Dim(Channels(size))
        return [dims]
    pieces = cut(channels, [s for s in (start, size, rest) if s != (0, 0)])
    dims[axis] = Dim(pieces[int(start != (0, 0))])
    return [dims]


def _start(given: Mapping[str, Any], size: int) -> int:
    start: int = given.get("start") or 0
    return min(max(start + size if start < 0 else start, 0), size)


def _split(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    axis = call.dense.get("dim", 0) % len(dims)
    pieces = cut(dims[axis].channels, [found.run.sizes[value][axis] for value in call.outputs])
    return [[*dims[:axis], Dim(piece), *dims[axis + 1 :]] for piece in pieces]


def _cat(found: Followed, call: Call, index: int) -> list[Dims]:
    # an empty tensor of one dimension is what caches start with
    operands = [
        dims for v in call.dense["tensors"] if len(dims := found.of(v)) > 1 or found.run.sizes[v] != ((0, 0),)
    ]
    axis = call.dense.get("dim", 0) % len(operands[0])
    joined = concatenation([dims[axis].channels for dims in operands])
    for dims in operands:
        found.keep(*dims)
    rest = [
        Dim(reduce(unify, [dims[i].channels for dims in operands])) if i != axis else Dim(joined)
        for i in range(len(operands[0]))
    ]
    return [rest]


def _stack(found: Followed, call: Call, index: int) -> list[Dims]:
    operands = [found.of(value) for value in call.dense["tensors"]]
    dims = [Dim(reduce(unify, [d.channels for d in same])) for same in zip(*operands, strict=True)]
    dims.insert(
        call.dense.get("dim", 0) % (len(dims) + 1), Dim(Channels((len(operands), len(call.wide["tensors"]))))
    )
    return [dims]


def _index(found: Followed, call: Call, index: int) -> list[Dims]:
    dims, indices = found.of(call.dense["self"]), call.dense["indices"]
    axes = [i for i, given in enumerate(indices) if given is not None]
    if any(dims[i].channels.grows for i in axes) or axes != list(range(axes[0], axes[-1] + 1)):
        raise UnmatchedError("single channels are looked up")
    rest = [dim for i, dim in enumerate(dims) if i not in axes]
    found.keep(*rest)
    new = found.run.sizes[call.outputs[0]]
    looked_up = _still(new[axes[0] : len(new) - len(rest) + axes[0]])
    return [[*rest[: axes[0]], *looked_up, *rest[axes[0] :]]]


def _embedding(found: Followed, call: Call, index: int) -> list[Dims]:
    rows, columns = found.of(call.dense["weight"])
    if rows.channels.grows:
        raise UnmatchedError("the rows of a table are looked up")
    found.keep(columns)
    return [[*found.of(call.dense["indices"]), Dim(columns.channels)]]


def _spatial(found: Followed, call: Call, index: int) -> list[Dims]:
    """Everything that works within each channel, and changes other dimensions."""
    dims = found.of(call.dense["self"])
    moved = _axes(call.dense.get("dims"), len(dims)) if "dims" in call.dense else set()
    if any(dims[axis].channels.grows for axis in moved):
        raise UnmatchedError("channels are moved")
    return [
        [
            d if d.channels.grows and d.channels.size == s else _still([s])[0]
            for d, s in zip(dims, found.run.sizes[value], strict=True)
        ]
        for value in call.outputs
    ]


def _pixel_shuffle(found: Followed, call: Call, index: int) -> list[Dims]:
    *batch, channels, _, _ = found.of(call.dense["self"])
    factor = call.dense["upscale_factor"] ** 2
    size = channels.channels.size
    inner = factors(channels.channels, [(size[0] // factor, size[1] // factor), (factor, factor)])[0]
    return [[*batch, Dim(inner), *_still(found.run.sizes[call.outputs[0]][-2:])]]


# --- sums and statistics --------------------------------------------------------------------------------


def _axes(dim: Any, rank: int) -> set[int]:
    dims = [dim] if isinstance(dim, int) else dim
    return {d % rank for d in dims} if dims else set(range(rank))


def _reduction(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    axes = _axes(call.dense.get("dim"), len(dims))
    grown = [dims[i].channels for i in sorted(axes) if dims[i].channels.grows]
    averages = call.name == "mean" or (call.name == "var" and call.dense.get("correction") == 0)
    if grown and not averages and call.name not in ("amax", "amin"):
        raise UnmatchedError("it is no mean, and so grows with their number")
    if averages:
        found.averages.extend([(call.module, channels) for channels in grown])
    found.keep(*dims)
    kept = [
        Dim(Channels((1, 1))) if i in axes else Dim(d.channels)
        for i, d in enumerate(dims)
        if i not in axes or call.dense.get("keepdim", False)
    ]
    return [kept]


def _softmax(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    if dims[call.dense["dim"]].channels.grows:
        raise UnmatchedError("it shares one among all channels")
    return [[Dim(d.channels) for d in dims]]


def _layer_norm(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["input"])
    own = [found.of(call.dense.get(name)) for name in ("weight", "bias")]
    count = len(call.dense["normalized_shape"])
    found.averages.extend([(call.module, d.channels) for d in dims[-count:] if d.channels.grows])
    for affine in own:
        found.keep(*affine)
        for a, b in zip(affine, dims[-count:], strict=False):
            unify(a.channels, b.channels)
    return [[Dim(d.channels) for d in dims]]


def _channel_norm(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["input"])
    for name in ("weight", "bias", "running_mean", "running_var"):
        for own in found.of(call.dense.get(name)):
            found.keep(own)
            unify(own.channels, dims[1].channels)
    if "group" in call.dense:
        groups, size = (call.dense["group"], call.wide["group"]), dims[1].channels.size
        inner = factors(dims[1].channels, [groups, (size[0] // groups[0], size[1] // groups[1])])[1]
        if inner.grows:
            found.averages.append((call.module, inner))
    return [[Dim(d.channels) for d in dims]]


# --- contractions ---------------------------------------------------------------------------------------


def _product(first: str, second: str, found: Followed, call: Call, index: int) -> list[Dims]:
    left, right = found.of(call.dense[first]), found.of(call.dense[second])
    same = unify(left[-1].channels, right[-2].channels)
    if same.grows:
        if right[-2].slot:
            made = Sum(index, call.dense[first], len(left) - 1, same, right[-2].slot)
        elif left[-1].slot:
            made = Sum(index, call.dense[second], len(right) - 2, same, left[-1].slot)
        else:
            made = Sum(index, call.dense[first], len(left) - 1, same)
        found.sums.append(made)
    batch = [Dim(unify(a.channels, b.channels)) for a, b in zip(left[:-2], right[:-2], strict=True)]
    found.keep(*left[:-1], *right[:-2], right[-1])
    result = [*batch, Dim(left[-2].channels), Dim(right[-1].channels)]
    added = found.of(call.dense["self"]) if first != "self" else []
    found.keep(*added)
    return [_broadcast([result, added], found.run.sizes[call.outputs[0]])]


def _convolution(found: Followed, call: Call, index: int) -> list[Dims]:
    dims, weight = found.of(call.dense["input"]), found.of(call.dense["weight"])
    groups, size = (call.dense["groups"], call.wide["groups"]), dims[1].channels.size
    per_group = (size[0] // groups[0], size[1] // groups[1])
    outer, inner = factors(dims[1].channels, [groups, per_group])
    if call.dense["transposed"]:
        unify(weight[0].channels, dims[1].channels)
        out, summed, repeats = product([outer, weight[1].channels]), weight[0], groups
        found.keep(weight[1])
    else:
        out, summed, repeats = weight[0].channels, weight[1], (1, 1)
        count = out.size[0] // groups[0], out.size[1] // groups[1]
        unify(factors(out, [groups, count])[0], outer)
        unify(summed.channels, inner)
        found.keep(weight[0])
    if inner.grows:
        if summed.slot is None:
            raise UnmatchedError("its weight is computed from others")
        found.sums.append(Sum(index, call.dense["input"], 1, inner, summed.slot, repeats))
    for bias in found.of(call.dense.get("bias")):
        found.keep(bias)
        unify(bias.channels, out)
    return [[Dim(dims[0].channels), Dim(out), *_still(found.run.sizes[call.outputs[0]][2:])]]


Rule = Callable[[Followed, Call, int], list[Dims]]

LAYOUT: Final[Mapping[str, Rule]] = MappingProxyType(
    dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _view)
    | {"permute": _permute, "transpose": _transpose, "t": _transpose, "unsqueeze": _unsqueeze}
    | {"squeeze": _squeeze, "expand": _expand, "select": _without, "unbind": _without, "slice": _slice}
    | dict.fromkeys(("split", "split_with_sizes"), _split)
    | {"as_strided": _as_strided}
    | dict.fromkeys(_CARRIERS, _pointwise)
)
"""Operators that only rearrange: a factor on what goes in is that factor on what comes out."""

_WITHIN: Final = (
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d"),
    *("avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_avg_pool1d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "roll", "flip"),
)  # fmt: skip

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    dict(LAYOUT)
    | dict.fromkeys(_WITHIN, _spatial)
    | dict.fromkeys(("empty", "zeros", "ones", "full", "scalar_tensor", "new_zeros", "new_ones", "new_empty"), _factory)
    | dict.fromkeys(("empty_like", "zeros_like", "ones_like", "new_full", "full_like"), _factory)
    | dict.fromkeys(("mean", "sum", "amax", "amin", "var", "linalg_vector_norm"), _reduction)
    | dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), _softmax)
    | dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), _layer_norm)
    | dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "native_group_norm"), _channel_norm)
    | {"mm": partial(_product, "self", "mat2"), "bmm": partial(_product, "self", "mat2")}
    | {"addmm": partial(_product, "mat1", "mat2"), "baddbmm": partial(_product, "batch1", "batch2")}
    | {"convolution": _convolution, "embedding": _embedding, "index": _index, "copy": _pointwise}
    | {"cat": _cat, "stack": _stack, "repeat": _repeat, "pixel_shuffle": _pixel_shuffle}
)  # fmt: skip
