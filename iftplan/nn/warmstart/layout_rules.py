"""Rules for elementwise and rearranging operators about channels: which are the same, split or joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from types import MappingProxyType
from typing import Any, Final

from iftplan.nn.warmstart.channels import Dim, Dims, Followed, Rule, constants, fixed_dims
from iftplan.nn.warmstart.lockstep import Call
from iftplan.nn.warmstart.replicas import (
    Channels,
    Size,
    UnmatchedError,
    concatenation,
    cut,
    factors,
    product,
    unify,
)

# --- elementwise ----------------------------------------------------------------------------------------

CARRIERS: Final = frozenset({"clone", "_to_copy", "detach", "alias", "lift_fresh", "contiguous"})


def pointwise(found: Followed, call: Call, index: int) -> list[Dims]:
    """Dimensions of an elementwise result: all that meets there is the same channels.

    Args:
        found: what was followed up to here.
        call: an elementwise operator.
        index: number of the call.

    Raises:
        UnmatchedError: a constant differs between the models, and no weight can make up for it.
    """
    tensors = call.inputs()
    for name, before, after in constants(call):
        if call.name not in ("mul", "div") or name != "other":
            raise UnmatchedError(f"the constant {before:g} becomes {after:g}")
        ratio = after / before if call.name == "mul" else before / after
        found.scalings.append((index, call.dense["self"], ratio))
    operands = [found.of(value) for value in tensors]
    if call.name in CARRIERS and len(operands) == 1:
        return [operands[0]]
    for dims in operands:
        found.keep(*dims)
    return [broadcast(operands, found.run.sizes[call.outputs[0]])]


def broadcast(operands: Sequence[Dims], sizes: Sequence[Size]) -> Dims:
    """Dimensions met from the last one on, as torch broadcasts."""
    result = []
    for back in range(len(sizes), 0, -1):
        met = [dims[-back].channels for dims in operands if len(dims) >= back]
        met = [channels for channels in met if channels.size != (1, 1)]
        result.append(Dim(reduce(unify, met) if met else Channels(sizes[-back])))
    return result


def _factory(found: Followed, call: Call, index: int) -> list[Dims]:
    if constants(call):
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
    at = axes(call.dense.get("dim"), len(dims))
    return [[d for i, d in enumerate(dims) if i not in at or d.channels.size != (1, 1)]]


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
    at = [i for i, given in enumerate(indices) if given is not None]
    if any(dims[i].channels.grows for i in at) or at != list(range(at[0], at[-1] + 1)):
        raise UnmatchedError("single channels are looked up")
    rest = [dim for i, dim in enumerate(dims) if i not in at]
    found.keep(*rest)
    new = found.run.sizes[call.outputs[0]]
    looked_up = fixed_dims(new[at[0] : len(new) - len(rest) + at[0]])
    return [[*rest[: at[0]], *looked_up, *rest[at[0] :]]]


def _embedding(found: Followed, call: Call, index: int) -> list[Dims]:
    rows, columns = found.of(call.dense["weight"])
    if rows.channels.grows:
        raise UnmatchedError("the rows of a table are looked up")
    found.keep(columns)
    return [[*found.of(call.dense["indices"]), Dim(columns.channels)]]


def _spatial(found: Followed, call: Call, index: int) -> list[Dims]:
    """Everything that works within each channel, and changes other dimensions."""
    dims = found.of(call.dense["self"])
    moved = axes(call.dense.get("dims"), len(dims)) if "dims" in call.dense else set()
    if any(dims[axis].channels.grows for axis in moved):
        raise UnmatchedError("channels are moved")
    return [
        [
            d if d.channels.grows and d.channels.size == s else fixed_dims([s])[0]
            for d, s in zip(dims, found.run.sizes[value], strict=True)
        ]
        for value in call.outputs
    ]


def _pixel_shuffle(found: Followed, call: Call, index: int) -> list[Dims]:
    *batch, channels, _, _ = found.of(call.dense["self"])
    factor = call.dense["upscale_factor"] ** 2
    size = channels.channels.size
    inner = factors(channels.channels, [(size[0] // factor, size[1] // factor), (factor, factor)])[0]
    return [[*batch, Dim(inner), *fixed_dims(found.run.sizes[call.outputs[0]][-2:])]]


def axes(dim: Any, rank: int) -> set[int]:
    """The dimensions that an argument `dim` means; all where it means none."""
    dims = [dim] if isinstance(dim, int) else dim
    return {d % rank for d in dims} if dims else set(range(rank))


LAYOUT: Final[Mapping[str, Rule]] = MappingProxyType(
    dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _view)
    | {"permute": _permute, "transpose": _transpose, "t": _transpose, "unsqueeze": _unsqueeze}
    | {"squeeze": _squeeze, "expand": _expand, "select": _without, "unbind": _without, "slice": _slice}
    | dict.fromkeys(("split", "split_with_sizes"), _split)
    | {"as_strided": _as_strided}
    | dict.fromkeys(CARRIERS, pointwise)
)
"""Operators that only rearrange: a factor on what goes in is that factor on what comes out."""

_WITHIN: Final = (
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d", "avg_pool2d"),
    *("avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_avg_pool1d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d"),
    *("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d", "roll", "flip"),
)  # fmt: skip

REARRANGED: Final[Mapping[str, Rule]] = MappingProxyType(
    dict(LAYOUT)
    | dict.fromkeys(_WITHIN, _spatial)
    | dict.fromkeys(("empty", "zeros", "ones", "full", "scalar_tensor", "new_zeros", "new_ones", "new_empty"), _factory)
    | dict.fromkeys(("empty_like", "zeros_like", "ones_like", "new_full", "full_like"), _factory)
    | {"copy": pointwise, "embedding": _embedding, "index": _index}
    | {"cat": _cat, "stack": _stack, "repeat": _repeat, "pixel_shuffle": _pixel_shuffle}
)  # fmt: skip
"""Operators that sum over nothing."""
