"""Members in the place of layers of `flax.nnx`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from inspect import signature
from math import prod
from typing import Any
from zlib import crc32

import jax
from flax import nnx

from iftplan.base.errors import InfeasibleError, StaleError
from iftplan.jaxnn.application.members import Inside, Layer, MemberPlan


class NnxMember(nnx.Module):  # type: ignore[misc]
    """Module in the place of a layer.

    Args:
        plan: what it is.
        layer: the dense layer that it replaces.
        inside: what stands inside it; None for nothing.
        seed: of its initial weights.
    """

    def __init__(self, plan: MemberPlan, layer: Any, inside: Inside | None, seed: int) -> None:
        self.plan = plan
        self.names = tuple(parts := plan.parts(_NnxBuilder(layer, nnx.Rngs(seed)), inside))
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x: Any, **options: Any) -> Any:
        """Output of the member, in the shape of the replaced layer's."""
        return self.plan.output({name: getattr(self, name) for name in self.names}, x, **options)


def with_nnx_members(model: Any, members: Mapping[str, MemberPlan], inside: Inside | None, seed: int) -> Any:
    """A copy of a module with members in the place of layers.

    Args:
        model: the dense module.
        members: path of a layer → what stands in its place.
        inside: what stands inside members; None for nothing.
        seed: of initial weights.

    Raises:
        StaleError: the module has no such layer.
    """
    copy = nnx.clone(model)
    modules = {
        ".".join(map(str, path)): (path, module)
        for path, module in nnx.iter_graph(copy)
        if isinstance(module, nnx.Module)
    }
    for name, plan in members.items():
        if name not in modules:
            raise StaleError(
                f"the plan transforms {name!r}, which the model does not have; make the plan again."
            )
        path, layer = modules[name]
        own_seed = crc32(f"{seed} {name}".encode())
        if _is_abstract(layer):
            member = nnx.eval_shape(lambda layer=layer, plan=plan: NnxMember(plan, layer, inside, 0))
        else:
            member = NnxMember(plan, layer, inside, own_seed)
        _put(reduce(_child, path[:-1], copy), path[-1], member)
    return copy


def _child(host: Any, key: Any) -> Any:
    return host[key] if isinstance(key, int) or not hasattr(host, str(key)) else getattr(host, key)


def _put(host: Any, key: Any, member: NnxMember) -> None:
    if isinstance(key, int) or isinstance(host, dict | nnx.Dict):
        host[key] = member
    else:
        setattr(host, key, member)


def _is_abstract(layer: Any) -> bool:
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree_util.tree_leaves(nnx.state(layer)))


@dataclass(frozen=True, slots=True)
class _NnxBuilder:
    """Layers of the same kind as the one that they replace.

    Attributes:
        layer: the dense layer.
        rngs: of initial weights.
    """

    layer: Any
    rngs: Any

    @property
    def outputs(self) -> int:
        features = self.layer.out_features
        return prod(features) if isinstance(features, tuple | list) else int(features)

    def like(self, name: str, *, bias: bool) -> Layer:
        return self._made(type(self.layer), use_bias=bias and self.layer.use_bias)

    def first(self, name: str, rank: int) -> Layer:
        if isinstance(self.layer, nnx.ConvTranspose):
            return self._point(self.layer.in_features, rank, bias=False)
        features = (rank,) if isinstance(self.layer, nnx.LinearGeneral) else rank
        return self._made(type(self.layer), out_features=features, use_bias=False)

    def last(self, name: str, rank: int, *, bias: bool) -> Layer:
        bias = bias and self.layer.use_bias
        match self.layer:
            case nnx.LinearGeneral():
                return self._made(type(self.layer), in_features=(rank,), axis=(-1,), use_bias=bias)
            case nnx.Linear() | nnx.ConvTranspose():
                return self._made(type(self.layer), in_features=rank, use_bias=bias)
        return self._point(rank, self.layer.out_features, bias=bias)

    def _made(self, kind: Any, **changes: Any) -> Layer:
        """A layer with the options of the replaced one; initializers, which it does not keep, are the usual ones."""
        if getattr(self.layer, "batch_axis", None):
            raise InfeasibleError(
                "a LinearGeneral with a weight for each entry of a batch cannot be replaced. Keep it dense with `keep_dense`."
            )
        known = {
            n: getattr(self.layer, n) for n in signature(kind.__init__).parameters if hasattr(self.layer, n)
        }
        known.pop("dot_general_cls", None)
        made: Layer = kind(**{**known, **changes}, rngs=self.rngs)
        return made

    def _point(self, inputs: int, outputs: int, *, bias: bool) -> Layer:
        """A 1×1 convolution."""
        old, sizes = self.layer, self.layer.kernel_size
        made: Layer = nnx.Conv(
            inputs,
            outputs,
            (1,) * (len(sizes) if isinstance(sizes, tuple | list) else 1),
            use_bias=bias,
            dtype=old.dtype,
            param_dtype=old.param_dtype,
            precision=old.precision,
            rngs=self.rngs,
        )
        return made
