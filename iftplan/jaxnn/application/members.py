"""Members of the Sparse-IFT families, which replace one layer, of whatever library the layer is.

A member consists of layers of the library's own kind. The first factor carries kernel, strides, padding and groups; the
second is linear or 1×1 (arXiv 2303.11525, section 3.1), and the other way round where the layer is a transposed
convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

Layer = Callable[..., Any]
Inside = Callable[[int], Layer]
"""Channels → what stands behind so many of them inside a member: a function, or a module of the same library."""

FAMILIES: Final = ("parallel", "factorized", "lowrank", "doped")
"""Families whose members there are."""


class LayerBuilder(Protocol):
    """Maker of the layers that a member consists of."""

    @property
    def outputs(self) -> int:
        """Channels of the replaced layer."""

    def like(self, name: str, *, bias: bool) -> Layer:
        """A layer of the same shape; with its own bias, if the replaced layer has one and it is asked for."""

    def first(self, name: str, rank: int) -> Layer:
        """A layer from the same inputs to `rank` channels, without a bias."""

    def last(self, name: str, rank: int, *, bias: bool) -> Layer:
        """A layer from `rank` channels to the same outputs.

        Args:
            name: of the layer.
            rank: its inputs.
            bias: whether it has the replaced layer's bias, if that has one.
        """


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """Member of a family in the place of a layer.

    Attributes:
        family: of `FAMILIES`.
        size: number of branches, or rank.
    """

    family: str
    size: int

    def parts(self, build: LayerBuilder, inside: Inside | None) -> dict[str, Layer]:
        """Name → layer of the member, with what stands inside it.

        Args:
            build: makes the layers.
            inside: what stands behind each branch, or between the factors; None for nothing.
        """
        branches = range(self.size if self.family == "parallel" else 0)
        doped = self.family == "doped"
        found: dict[str, Layer] = {
            f"branches_{i}": build.like(f"branches_{i}", bias=i == 0) for i in branches
        }
        if doped:
            found["sparse"] = build.like("sparse", bias=True)
        if not branches:
            found["U"] = build.first("U", self.size)
            found["V"] = build.last("V", self.size, bias=not doped)
        if inside is not None and branches:
            found |= {f"inside_{i}": inside(build.outputs) for i in branches}
        elif inside is not None:
            found["inside"] = inside(self.size)
        return found

    def output(self, parts: Mapping[str, Layer], x: Any, **options: Any) -> Any:
        """Output of the member, in the shape of the replaced layer's.

        It is `Σ σ(branch(x))`, `V(σ(U(x)))`, or `sparse(x) + V(σ(U(x)))`.

        Args:
            parts: what `parts` made.
            x: input of the layer.
            **options: of the layer's call, given on to the layers that have its outputs; None for their own.
        """
        given = {name: option for name, option in options.items() if option is not None}
        if self.family == "parallel":
            total = None
            for i in range(self.size):
                out = parts[f"branches_{i}"](x, **given)
                out = parts[f"inside_{i}"](out) if f"inside_{i}" in parts else out
                total = out if total is None else total + out
            return total
        low = parts["U"](x)
        low = parts["V"](parts["inside"](low) if "inside" in parts else low, **given)
        return parts["sparse"](x, **given) + low if self.family == "doped" else low
