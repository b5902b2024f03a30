"""Rules for each operator about the channels of its tensors: which are the same, split, joined or summed over."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import torch

from iftplan.base.errors import InfeasibleError
from iftplan.nn.warmstart.channels import Dim, Dims, Followed, Rule, Sum, constants, fixed_dims
from iftplan.nn.warmstart.layout_rules import REARRANGED, axes, broadcast, pointwise
from iftplan.nn.warmstart.lockstep import Call, Lockstep
from iftplan.nn.warmstart.replicas import Channels, UnmatchedError, factors, product, unify


def follow_channels(run: Lockstep) -> Followed:
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
        if any(map(found.grows, (*call.inputs(), *call.outputs))) or constants(call):
            _follow(found, call, index)
    return found


def _follow(found: Followed, call: Call, index: int) -> None:
    rule = RULES.get(call.name)
    if rule is None and torch.Tag.pointwise in call.function.tags:
        rule = pointwise
    try:
        if rule is None:
            raise UnmatchedError("iftplan does not know this operator")
        for value, dims in zip(call.outputs, rule(found, call, index), strict=False):
            found.dims[value] = dims
    except UnmatchedError as error:
        raise InfeasibleError(
            f"{call.module or 'the model'} cannot be started from dense weights: its {call.name} splits or "
            f"combines channels in a way that copies of them cannot follow ({error})."
        ) from error


# --- sums and statistics --------------------------------------------------------------------------------


def _reduction(found: Followed, call: Call, index: int) -> list[Dims]:
    dims = found.of(call.dense["self"])
    summed = axes(call.dense.get("dim"), len(dims))
    grown = [dims[i].channels for i in sorted(summed) if dims[i].channels.grows]
    averages = call.name == "mean" or (call.name == "var" and call.dense.get("correction") == 0)
    if grown and not averages and call.name not in ("amax", "amin"):
        raise UnmatchedError("it is not a mean, so it grows with the number of channels")
    if averages:
        found.averages.extend([(call.module, channels) for channels in grown])
    found.keep(*dims)
    kept = [
        Dim(Channels((1, 1))) if i in summed else Dim(d.channels)
        for i, d in enumerate(dims)
        if i not in summed or call.dense.get("keepdim", False)
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
    return [broadcast([result, added], found.run.sizes[call.outputs[0]])]


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
            raise UnmatchedError("its weight is computed from other parameters")
        found.sums.append(Sum(index, call.dense["input"], 1, inner, summed.slot, repeats))
    for bias in found.of(call.dense.get("bias")):
        found.keep(bias)
        unify(bias.channels, out)
    return [[Dim(dims[0].channels), Dim(out), *fixed_dims(found.run.sizes[call.outputs[0]][2:])]]


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    dict(REARRANGED)
    | dict.fromkeys(("mean", "sum", "amax", "amin", "var", "linalg_vector_norm"), _reduction)
    | dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), _softmax)
    | dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), _layer_norm)
    | dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "native_group_norm"), _channel_norm)
    | {"mm": partial(_product, "self", "mat2"), "bmm": partial(_product, "self", "mat2")}
    | {"addmm": partial(_product, "mat1", "mat2"), "baddbmm": partial(_product, "batch1", "batch2")}
    | {"convolution": _convolution}
)  # fmt: skip
