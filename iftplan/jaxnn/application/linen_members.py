"""Members in the place of layers of `flax.linen`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from flax import linen

from iftplan.base.errors import InfeasibleError
from iftplan.jaxnn.application.members import Inside, Layer, MemberPlan


class Applied(linen.Module):  # type: ignore[misc]
    """Module in which members stand in the place of layers; its other variables have the names that they had.

    Attributes:
        model: the dense module.
        members: path of a layer → what stands in its place.
        inside: what stands inside members; None for nothing.
    """

    traced_as: ClassVar[str] = "Applied.model"  # where the names of the model's own modules begin

    model: linen.Module
    members: Mapping[str, MemberPlan]
    inside: Inside | None = None

    def setup(self) -> None:
        """Put the model's variables where they are without this module."""
        linen.share_scope(self, self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Output of the planned model."""
        with linen.intercept_methods(_replacing(self.members, self.inside)):
            return self.model(*args, **kwargs)


def _replacing(members: Mapping[str, MemberPlan], inside: Inside | None) -> Callable[..., Any]:
    """Interceptor that computes members in the place of layers.

    Args:
        members: path of a layer → what stands in its place.
        inside: what stands inside them.
    """

    def replaced(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        layer = context.module
        # modules that are attributes were bound below `model` before its scope was shared
        below = layer.path[1:] if layer.path[:1] == ("model",) else ()
        planned = members.get(".".join(layer.path)) or members.get(".".join(below))
        if planned is None or context.method_name != "__call__":
            return call(*args, **kwargs)
        return planned.output(planned.parts(_LinenBuilder(layer), inside), *args, **kwargs)

    return replaced


@dataclass(frozen=True, slots=True)
class _LinenBuilder:
    """Layers inside the one that they replace, with its names and initializers.

    Attributes:
        layer: bound, in its own call.
    """

    layer: Any

    @property
    def outputs(self) -> int:
        features = self.layer.features
        return prod(features) if isinstance(features, tuple | list) else int(features)

    def like(self, name: str, *, bias: bool) -> Layer:
        return self._clone(name, use_bias=bias and self.layer.use_bias)

    def first(self, name: str, rank: int) -> Layer:
        if isinstance(self.layer, linen.ConvTranspose):
            return self._point(name, rank, bias=False)
        return self._clone(name, features=rank, use_bias=False)

    def last(self, name: str, rank: int, *, bias: bool) -> Layer:
        bias = bias and self.layer.use_bias
        match self.layer:
            case linen.ConvTranspose():
                return self._clone(name, use_bias=bias)
            case linen.DenseGeneral():
                return self._clone(name, axis=-1, use_bias=bias)
            case linen.Dense():
                return self._clone(name, use_bias=bias)
        return self._point(name, self.layer.features, bias=bias)

    def _clone(self, name: str, **changes: Any) -> Layer:
        if getattr(self.layer, "batch_dims", ()):
            raise InfeasibleError(
                f"{'.'.join(self.layer.path)} has a weight for each entry of a batch, which no member replaces. Keep it dense with `keep_dense`."
            )
        made: Layer = self.layer.clone(parent=self.layer, name=name, **changes)
        return made

    def _point(self, name: str, features: int, *, bias: bool) -> Layer:
        """A 1×1 convolution."""
        old, sizes = self.layer, self.layer.kernel_size
        made: Layer = linen.Conv(
            features,
            (1,) * (len(sizes) if isinstance(sizes, tuple | list) else 1),
            use_bias=bias,
            dtype=old.dtype,
            param_dtype=old.param_dtype,
            precision=old.precision,
            kernel_init=old.kernel_init,
            bias_init=old.bias_init,
            name=name,
        )
        return made
