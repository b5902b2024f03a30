"""A model whose parameters and size-like attributes are symbolic, for the time of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import sympy
import torch
from torch import nn

from iftplan.models.spec import Heads
from iftplan.nn.reading.repeats import NO_SIZES
from iftplan.nn.reading.symbolic.recurrent import recurrent_attributes, recurrent_dims
from iftplan.nn.reading.symbolic.shapes import SymbolicSizes, expression
from iftplan.nn.torch_internals import ConvNd, NormBase
from iftplan.nn.torch_internals.symbolic import FakeTensorMode

_OF_NORM: Final = frozenset({"weight", "bias", "running_mean", "running_var"})
Norm = (NormBase, nn.GroupNorm, nn.LayerNorm)


class NamedScale(float):
    """A float attribute that can be recognised where it is used.

    Attributes:
        name: "module.path.attribute".
    """

    name: str

    @staticmethod
    def of(value: float, name: str) -> NamedScale:
        """The value with its name."""
        scale = NamedScale(value)
        scale.name = name
        return scale


@dataclass(frozen=True, slots=True)
class SymbolicModel:
    """Parameters, buffers and size-like attributes of a model whose sizes are symbols.

    Attributes:
        tensors: parameter or buffer name (all names of a tied one) → the tensor that stands in for it.
        shapes: the same names → their dimensions as expressions.
        attributes: "module.path.attribute" → expression of a size-like integer attribute.
        embeddings: symbols that count the rows of an embedding → the embedding's name.
        group_inputs: symbols of the per-group input dimension of grouped convolutions.
        multiples: (expression, divisor, reason) for what no shape function checks.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    shapes: dict[str, tuple[sympy.Expr, ...]] = field(default_factory=dict)
    attributes: dict[str, sympy.Expr] = field(default_factory=dict)
    embeddings: dict[sympy.Symbol, str] = field(default_factory=dict)
    group_inputs: set[sympy.Symbol] = field(default_factory=set)
    multiples: list[tuple[sympy.Expr, int, str]] = field(default_factory=list)


@contextmanager
def symbolic(
    model: nn.Module,
    sizes: SymbolicSizes,
    mode: FakeTensorMode,
    heads: Heads,
    twins: Mapping[str, str],
    held: Set[str] = frozenset(),
) -> Iterator[SymbolicModel]:
    """Give the model's attributes symbolic values; the attributes are restored at the end.

    Args:
        model: the model; its parameters are not touched, they have stand-ins.
        sizes: makes the symbols.
        mode: the stand-ins' mode.
        heads: what `nn.MultiheadAttention` keeps.
        twins: module path → path of an earlier module whose symbols it shares.
        held: paths of modules whose own tensors and attributes keep their sizes.
    """
    made = SymbolicModel()
    values: dict[str, dict[str, object]] = {}
    saved: list[tuple[nn.Module, str, object]] = []

    def put(module: nn.Module, name: str, value: object) -> None:
        saved.append((module, name, module.__dict__[name]))
        module.__dict__[name] = value

    try:
        for path, module in model.named_modules():
            _fake_tensors(made, sizes, mode, path, module, heads, twins.get(path), path in held)
        _tie(model, made)
        for path, module in model.named_modules():
            if path in held:
                values[path] = {}
                continue
            twin = twins.get(path)
            values[path] = _attributes(made, sizes, path, module, heads) if twin is None else values[twin]
            for name, value in (values[path] | _scales(path, module)).items():
                put(module, name, value)
                for position, size in enumerate(value if type(value) is tuple else (value,)):
                    if isinstance(size, torch.SymInt):
                        index = f"[{position}]" if type(value) is tuple else ""
                        made.attributes[f"{_join(path, name)}{index}"] = expression(size)
        yield made
    finally:
        for module, name, value in reversed(saved):
            module.__dict__[name] = value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _fake_tensors(
    made: SymbolicModel,
    sizes: SymbolicSizes,
    mode: FakeTensorMode,
    path: str,
    module: nn.Module,
    heads: Heads,
    twin: str | None,
    held: bool,
) -> None:
    parameters, buffers = module._parameters, module._buffers
    own: list[tuple[str, torch.Tensor, bool]] = []
    own += [(n, p, True) for n, p in parameters.items() if p is not None]
    own += [(n, b, False) for n, b in buffers.items() if b is not None]
    if held:
        dims = {name: list(tensor.shape) for name, tensor, _ in own}
    elif twin is not None:
        dims = {name: list(made.tensors[_join(twin, name)].shape) for name, _, _ in own}
    elif isinstance(module, nn.MultiheadAttention):
        dims = _multihead_dims(module, sizes, heads)
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        dims = recurrent_dims(module, sizes)
    else:
        dims = {
            n: _dims(made, sizes, _join(path, n), module, n, t, is_parameter) for n, t, is_parameter in own
        }
    for name, tensor, _ in own:
        with mode:
            # A CPU stand-in: code that branches on the device takes its ordinary path.
            fake = torch.empty(dims[name], dtype=tensor.dtype, device="cpu")
        made.tensors[_join(path, name)] = fake
        made.shapes[_join(path, name)] = tuple(expression(d) for d in dims[name])


def _dims(
    made: SymbolicModel,
    sizes: SymbolicSizes,
    full: str,
    module: nn.Module,
    name: str,
    tensor: torch.Tensor,
    is_parameter: bool,
) -> list[Any]:
    shape = list(tensor.shape)
    if not is_parameter and not isinstance(module, Norm) and not _frozen_norm(module, name):
        return shape  # what a user's buffer holds cannot be known, so its size stays
    if isinstance(module, ConvNd) and name == "weight":
        return _conv_dims(made, sizes, module, shape, full)
    # Kernels of raw convolution weights are spatial; all other dimensions may be channels.
    channels = 2 if len(shape) > 3 and shape[0] > 1 else len(shape)
    dims = [sizes.new(d) if i < channels and tensor.is_floating_point() else d for i, d in enumerate(shape)]
    if isinstance(module, nn.Embedding) and isinstance(dims[0], torch.SymInt):
        made.embeddings[_symbol(dims[0])] = full
    return dims


def _frozen_norm(module: nn.Module, name: str) -> bool:
    """Whether a buffer is one of a batch norm whose scales and shifts are buffers too, as detectors freeze them."""
    buffers = {n: b for n, b in module._buffers.items() if b is not None and b.dim() == 1}
    own = _OF_NORM.intersection(buffers)
    return name in own and {"running_mean", "running_var"} <= own and len({len(buffers[n]) for n in own}) == 1


def _conv_dims(
    made: SymbolicModel, sizes: SymbolicSizes, module: ConvNd, shape: list[int], full: str
) -> list[Any]:
    groups, (first, second) = module.groups, shape[:2]
    if groups > 1 and (module.in_channels == groups):  # depthwise: one input channel per group
        if module.transposed:
            return [sizes.new(first), *shape[1:]]
        return [(first // groups) * sizes.new(groups), *shape[1:]]
    if groups > 1:
        where = f"{full} has {groups} groups"
        grouped = sizes.new(first)
        made.multiples.append((expression(grouped), groups, where))
        inner = sizes.new(second)
        if isinstance(inner, torch.SymInt):
            made.group_inputs.add(_symbol(inner))
        return [grouped, inner, *shape[2:]]
    return [sizes.new(first), sizes.new(second), *shape[2:]]


def _multihead_dims(
    module: nn.MultiheadAttention, sizes: SymbolicSizes, heads: Heads
) -> dict[str, list[Any]]:
    """`nn.MultiheadAttention` asserts its sizes in Python, so they are built as number × size."""
    number, size = module.num_heads, module.head_dim
    embed = number * sizes.new(size) if heads == "number" else size * sizes.new(number)
    other = {
        "q_proj_weight": [embed, embed],
        "k_proj_weight": [embed, embed if module.kdim == module.embed_dim else sizes.new(module.kdim)],
        "v_proj_weight": [embed, embed if module.vdim == module.embed_dim else sizes.new(module.vdim)],
        "bias_k": [1, 1, embed],
        "bias_v": [1, 1, embed],
    }
    return {"in_proj_weight": [3 * embed, embed], "in_proj_bias": [3 * embed], **other}


def _tie(model: nn.Module, made: SymbolicModel) -> None:
    first: dict[int, str] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        original = first.setdefault(id(tensor), name)
        if original != name:
            made.tensors[name] = made.tensors[original]
            made.shapes[name] = made.shapes[original]
            # An embedding tied to a head: whichever came first holds the symbol.
            owner = model.get_submodule(name.rpartition(".")[0])
            rows = made.shapes[original][0]
            if isinstance(owner, nn.Embedding) and rows.is_Symbol:
                made.embeddings.setdefault(rows, name)


def _symbol(size: torch.SymInt) -> sympy.Symbol:
    return next(iter(expression(size).free_symbols))


def _attributes(
    made: SymbolicModel, sizes: SymbolicSizes, path: str, module: nn.Module, heads: Heads
) -> dict[str, object]:
    """The symbolic values of the module's own attributes."""
    shape_of = {
        n: tuple(made.tensors[_join(path, n)].shape)
        for n in (*module._parameters, *module._buffers)
        if _join(path, n) in made.tensors
    }
    if isinstance(module, (*Norm, nn.RMSNorm)):
        return _norm_attributes(module, sizes, shape_of)
    if isinstance(module, ConvNd) and module.groups > 1 and module.groups == module.in_channels:
        multiplier = 1 if module.transposed else module.out_channels // module.groups
        return {"groups": shape_of["weight"][0] // multiplier}
    if isinstance(module, nn.MultiheadAttention):
        return _multihead_attributes(module, shape_of, heads)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return recurrent_attributes(module, {name: made.tensors[_join(path, name)] for name in shape_of})
    if type(module).__module__.startswith("torch.nn."):
        return {}
    return {
        name: sizes.new(value, attribute=True)
        for name, value in vars(module).items()
        if type(value) is int and value > 1 and name not in NO_SIZES
    }


def _norm_attributes(
    module: nn.Module, sizes: SymbolicSizes, shape_of: dict[str, tuple[Any, ...]]
) -> dict[str, object]:
    """What a norm checks its input against; one without weights has a size of its own."""
    own = next((shape_of[name] for name in ("weight", "running_mean") if name in shape_of), None)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return {
            "normalized_shape": own or tuple(sizes.new(n, attribute=True) for n in module.normalized_shape)
        }
    if isinstance(module, nn.GroupNorm):
        by_channel = own is not None and module.num_groups == module.num_channels > 1
        return {"num_groups": own[0]} if own and by_channel else {}
    if isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        return {"num_features": own[0] if own else sizes.new(module.num_features, attribute=True)}
    return {}


def _scales(path: str, module: nn.Module) -> dict[str, object]:
    """The module's own floats, recognisable."""
    if type(module).__module__.startswith("torch.nn."):
        return {}
    floats = {name: value for name, value in vars(module).items() if type(value) is float and value > 0}
    return {name: NamedScale.of(value, _join(path, name)) for name, value in floats.items()}


def _multihead_attributes(
    module: nn.MultiheadAttention, shape_of: dict[str, tuple[Any, ...]], heads: Heads
) -> dict[str, object]:
    packed = shape_of.get("in_proj_weight")
    embed = packed[1] if packed is not None else shape_of["q_proj_weight"][0]
    named: dict[str, object] = {"embed_dim": embed}
    if heads == "number":
        named["head_dim"] = embed // module.num_heads
    else:
        named["num_heads"] = embed // module.head_dim
    for key, weight in (("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
        named[key] = shape_of[weight][1] if weight in shape_of else embed
    return named
