"""Rebuilds a model in place at new widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn

from iftplan.base.errors import InfeasibleError, InputError
from iftplan.models.spec import Couplings
from iftplan.nn.torch_internals import ConvNd, NormBase

Shape = tuple[int, ...]


def widen_(model: nn.Module, couplings: Couplings, sizes: Mapping[str, int]) -> nn.Module:
    """Give `model` the widths `sizes`, in place, and return it.

    Parameters whose shape changes are new: drawn with the mean and standard deviation that they had, or as before where
    they were the same all along what changes; weights of layers have to be initialised before training, for these keep no
    account of fan-in. They keep their dtype, device, `requires_grad` and ties; the integer attributes that depend on a width
    are rewritten, and so are the scales of attention scores.

    Args:
        model: the model that was traced (any device, meta included).
        couplings: what `trace_widths` found.
        sizes: symbol → new size; a width that is left out keeps its dense size.

    Raises:
        InputError: an unknown symbol, a fixed width that would change, or a size that does not divide.
        InfeasibleError: some tensor would have a size below 1.
    """
    new = _checked(couplings, sizes)
    shapes = shapes_at(couplings, new)
    replaced: dict[nn.Parameter, nn.Parameter] = {}
    for path, module in model.named_modules():
        changed = _resize(path, module, shapes, replaced)
        for name in [*module._parameters, *module._buffers]:
            if _join(path, name) in shapes and name == "weight":
                _bookkeep(module, shapes[_join(path, name)])
        if isinstance(module, nn.MultiheadAttention) and changed:
            _bookkeep_multihead(module)
        if changed:
            _normalise(module)
        if isinstance(module, nn.RNNBase) and changed:  # computes with a list of its weights
            module._flat_weights = [getattr(module, name, None) for name in module._flat_weights_names]
    for name, value in couplings.attributes.items():
        path, _, attribute = name.rpartition(".")
        _set_attribute(model.get_submodule(path), attribute, value.at(new))
    for name, size in couplings.scales.items():
        path, _, attribute = name.rpartition(".")
        model.get_submodule(path).__dict__[attribute] = size.at(new) ** -0.5
    return model


def _set_attribute(module: nn.Module, attribute: str, value: int) -> None:
    """Set an integer, or with "name[i]" one of a tuple of integers."""
    name, indexed, rest = attribute.partition("[")
    if not indexed:
        module.__dict__[name] = value
        return
    values = list(module.__dict__[name])
    values[int(rest.rstrip("]"))] = value
    module.__dict__[name] = type(module.__dict__[name])(values)


def shapes_at(couplings: Couplings, sizes: Mapping[str, int]) -> dict[str, Shape]:
    """The shape of every parameter and buffer at these widths.

    Raises:
        InfeasibleError: some tensor would have a size below 1, or one that is no whole number.
    """
    shapes: dict[str, Shape] = {}
    for name, dimensions in couplings.shapes.items():
        try:
            shapes[name] = tuple(d.at(sizes) for d in dimensions)
        except ValueError as error:
            raise InfeasibleError(f"{name} cannot have these widths: {error}.") from error
        if any(n < 1 and d.symbols for n, d in zip(shapes[name], dimensions, strict=True)):
            shape = "x".join(map(str, shapes[name]))
            raise InfeasibleError(
                f"{name} would have the shape {shape} at these widths; every size must be at least 1."
            )
    return shapes


def _checked(couplings: Couplings, sizes: Mapping[str, int]) -> dict[str, int]:
    unknown = [name for name in sizes if name not in couplings.widths]
    if unknown:
        raise InputError(f"the model has no width {unknown[0]!r}; it has {', '.join(couplings.widths)}")
    new = {name: sizes.get(name, width.size) for name, width in couplings.widths.items()}
    for name, width in couplings.widths.items():
        if width.fixed and new[name] != width.size:
            raise InputError(f"width {name} must stay {width.size} ({width.fixed}), not {new[name]}")
        if new[name] < 1 or new[name] % width.multiple_of:
            nearest = max(1, round(new[name] / width.multiple_of)) * width.multiple_of
            raise InputError(
                f"width {name} must be a positive multiple of {width.multiple_of}, not {new[name]}; "
                f"the nearest is {nearest}"
            )
    return new


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _resize(
    path: str, module: nn.Module, shapes: Mapping[str, Shape], replaced: dict[nn.Parameter, nn.Parameter]
) -> bool:
    """Replace the module's own tensors; whether one of them changed."""
    changed = False
    for name, old in module._parameters.items():
        if old is None or shapes.get(_join(path, name), old.shape) == old.shape:
            continue
        if old not in replaced:
            fresh = _fresh(name, old, shapes[_join(path, name)])
            replaced[old] = nn.Parameter(fresh, requires_grad=old.requires_grad)
            replaced[old].__dict__.update(old.__dict__)  # what libraries note on it
        module._parameters[name] = replaced[old]
        changed = True
    for name, buffer in module._buffers.items():
        if buffer is not None and shapes.get(_join(path, name), buffer.shape) != buffer.shape:
            filler = torch.ones if name in ("running_var", "weight") else torch.zeros
            module._buffers[name] = filler(
                shapes[_join(path, name)], dtype=buffer.dtype, device=buffer.device
            )
    return changed


def _fresh(name: str, old: nn.Parameter, shape: Shape) -> torch.Tensor:
    """The parameter in its new shape and at the scale that its model gave it.

    What is the same all along the dimensions that change stays so: ones, zeros, a layer scale, the rows of a state space. Other
    norms and biases begin at 1 and 0; everything else is drawn with the mean and the deviation that it had.
    """
    tensor = torch.empty(shape, dtype=old.dtype, device=old.device)
    if old.device.type == "meta":
        return tensor
    with torch.no_grad():
        pattern: torch.Tensor = old
        for dimension, (before, after) in enumerate(zip(old.shape, shape, strict=True)):
            if before != after:
                pattern = pattern.narrow(dimension, 0, 1)
        if bool((old == pattern).all()):
            return tensor.copy_(pattern.expand(shape))
        if name.endswith("bias") or (len(shape) < 2 and name == "weight"):
            return tensor.fill_(0.0 if name.endswith("bias") else 1.0)
        values = old.float()
        return nn.init.normal_(tensor, float(values.mean()), float(values.std(correction=0)))


def _normalise(module: nn.Module) -> None:
    """A weight norm's lengths are those of its new directions, so that the weight is what was drawn for them."""
    for length, direction in (("original0", "original1"), ("weight_g", "weight_v")):
        g, v = module._parameters.get(length), module._parameters.get(direction)
        if g is None or v is None or g.dim() != v.dim() or g.is_meta:
            continue
        over = [i for i, n in enumerate(g.shape) if n == 1 and v.shape[i] != 1]
        with torch.no_grad():
            g.copy_(torch.linalg.vector_norm(v, dim=over, keepdim=True) if over else v.abs())


def _linear(module: Any, shape: Shape) -> None:
    module.out_features, module.in_features = shape


def _bilinear(module: Any, shape: Shape) -> None:
    module.out_features, module.in1_features, module.in2_features = shape


def _convolution(module: Any, shape: Shape) -> None:
    if module.groups > 1 and module.groups == module.in_channels:  # depthwise: groups follow the channels
        module.groups = shape[0] // (1 if module.transposed else module.out_channels // module.groups)
    first, second = shape[0], shape[1] * module.groups
    module.in_channels, module.out_channels = (first, second) if module.transposed else (second, first)


def _batch_norm(module: Any, shape: Shape) -> None:
    module.num_features = shape[0]


def _group_norm(module: Any, shape: Shape) -> None:
    module.num_channels = shape[0]


def _layer_norm(module: Any, shape: Shape) -> None:
    module.normalized_shape = shape


def _embedding(module: Any, shape: Shape) -> None:
    module.num_embeddings, module.embedding_dim = shape
    if module.padding_idx is not None:  # whose row stands for nothing, and has no gradient
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def _prelu(module: Any, shape: Shape) -> None:
    module.num_parameters = shape[0]


_BOOKKEEPING: Final[Mapping[type[nn.Module], Callable[[Any, Shape], None]]] = MappingProxyType(
    {
        nn.Linear: _linear,
        nn.Bilinear: _bilinear,
        ConvNd: _convolution,
        NormBase: _batch_norm,
        nn.GroupNorm: _group_norm,
        nn.LayerNorm: _layer_norm,
        nn.RMSNorm: _layer_norm,
        nn.Embedding: _embedding,
        nn.EmbeddingBag: _embedding,
        nn.PReLU: _prelu,
    }
)


def _bookkeep(module: nn.Module, weight: Shape) -> None:
    """Let a torch.nn leaf module's own attributes say what its weight says."""
    for kind, write in _BOOKKEEPING.items():
        if isinstance(module, kind):
            write(module, weight)


def _bookkeep_multihead(module: nn.MultiheadAttention) -> None:
    packed = module._parameters.get("in_proj_weight")
    module.embed_dim = packed.shape[1] if packed is not None else module.q_proj_weight.shape[0]
    module.kdim = module.embed_dim if packed is not None else module.k_proj_weight.shape[1]
    module.vdim = module.embed_dim if packed is not None else module.v_proj_weight.shape[1]
