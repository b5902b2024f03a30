"""Members in the place of layers of Equinox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from inspect import signature
from typing import Any
from zlib import crc32

import equinox as eqx
import jax

from iftplan.base.errors import StaleError
from iftplan.jaxnn.application.members import Inside, Layer, MemberPlan


class EquinoxMember(eqx.Module):  # type: ignore[misc]
    """Module in the place of a layer.

    Attributes:
        plan: what it is.
        parts: name → layer, or what stands inside.
    """

    plan: MemberPlan = eqx.field(static=True)
    parts: dict[str, Any]

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        """Output of the member, in the shape of the replaced layer's."""
        return self.plan.output(self.parts, x)


def with_equinox_members(
    model: Any, members: Mapping[str, MemberPlan], inside: Inside | None, seed: int
) -> Any:
    """A module with members in the place of layers.

    Args:
        model: the dense module.
        members: path of a layer → what stands in its place.
        inside: what stands inside members; None for nothing.
        seed: of initial weights.

    Raises:
        StaleError: the module has no such layer.
    """
    for name, plan in members.items():
        path = name.split(".")
        try:
            layer = _at(model, path)
        except (AttributeError, IndexError, KeyError) as error:
            raise StaleError(
                f"the plan transforms {name!r}, which the model does not have; make the plan again."
            ) from error

        def made(layer: Any = layer, plan: MemberPlan = plan, name: str = name) -> EquinoxMember:
            builder = _EquinoxBuilder(layer, jax.random.key(crc32(f"{seed} {name}".encode())))
            return EquinoxMember(plan, plan.parts(builder, inside))

        abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree_util.tree_leaves(layer))
        member = eqx.filter_eval_shape(made) if abstract else made()
        model = eqx.tree_at(lambda whole, path=path: _at(whole, path), model, member)
    return model


def _at(model: Any, path: list[str]) -> Any:
    def step(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            return value[key]
        return value[int(key)] if isinstance(value, list | tuple) else getattr(value, key)

    return reduce(step, path, model)


@dataclass(frozen=True, slots=True)
class _EquinoxBuilder:
    """Layers of the same kind as the one that they replace.

    Attributes:
        layer: the dense layer.
        key: of initial weights.
    """

    layer: Any
    key: Any

    @property
    def outputs(self) -> int:
        return int(self.layer.out_features if self._linear else self.layer.out_channels)

    @property
    def _linear(self) -> bool:
        return isinstance(self.layer, eqx.nn.Linear)

    def like(self, name: str, *, bias: bool) -> Layer:
        return self._made(name, use_bias=bias and self.layer.use_bias)

    def first(self, name: str, rank: int) -> Layer:
        if isinstance(self.layer, eqx.nn.ConvTranspose):
            return self._point(name, self.layer.in_channels, rank, bias=False)
        return self._made(name, use_bias=False, **{"out_features" if self._linear else "out_channels": rank})

    def last(self, name: str, rank: int, *, bias: bool) -> Layer:
        bias = bias and self.layer.use_bias
        if self._linear or isinstance(self.layer, eqx.nn.ConvTranspose):
            return self._made(name, use_bias=bias, **{"in_features" if self._linear else "in_channels": rank})
        return self._point(name, rank, self.layer.out_channels, bias=bias)

    def _made(self, name: str, **changes: Any) -> Layer:
        kind = type(self.layer)
        known = {
            n: getattr(self.layer, n) for n in signature(kind.__init__).parameters if hasattr(self.layer, n)
        }
        known |= {"dtype": self.layer.weight.dtype, "key": self._key(name)}
        made: Layer = kind(**{**known, **changes})
        return made

    def _point(self, name: str, inputs: int, outputs: int, *, bias: bool) -> Layer:
        """A 1×1 convolution."""
        dims, dtype = self.layer.num_spatial_dims, self.layer.weight.dtype
        made: Layer = eqx.nn.Conv(dims, inputs, outputs, 1, use_bias=bias, dtype=dtype, key=self._key(name))
        return made

    def _key(self, name: str) -> Any:
        return jax.random.fold_in(self.key, crc32(name.encode()))
