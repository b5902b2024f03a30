"""The two layers that a growing width lies between, and the norms that it passes there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from iftplan.base.errors import InfeasibleError
from iftplan.models.polynomial import Polynomial
from iftplan.models.spec import Couplings
from iftplan.nn.torch_internals import ConvNd, NormBase


@dataclass(frozen=True, slots=True)
class Pair:
    """Layer that writes a width, the layer that reads it, and the norms between them, each by its path."""

    incoming: str
    outgoing: str
    norms: tuple[str, ...]


def pair_of(model: nn.Module, couplings: Couplings, width: str) -> Pair:
    """The layers on both sides of a width.

    Args:
        model: that was traced.
        couplings: what was found of it.
        width: its symbol.

    Raises:
        InfeasibleError: the width is not written by one linear layer or convolution and read by one; names what else has it.
    """
    own = Polynomial.symbol(width)
    incoming: list[str] = []
    outgoing: list[str] = []
    norms: list[str] = []
    for path, name, axis, dimension in _dimensions(couplings, width):
        module = model.get_submodule(path)
        if _plain(module) and name == "weight" and axis < 2 and dimension == own:
            (incoming if axis == 0 else outgoing).append(path)
        elif isinstance(module, NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
            norms.append(path)
        elif not (_plain(module) and name == "bias"):
            raise InfeasibleError(_refusal(width, f"dimension {axis} of {path}.{name} is {dimension}"))
    if len(incoming) != 1 or len(outgoing) != 1:
        raise InfeasibleError(
            _refusal(
                width,
                f"{_listed(incoming)} write it and {_listed(outgoing)} read it, where one each is needed",
            )
        )
    return Pair(incoming[0], outgoing[0], tuple(dict.fromkeys(norms)))


def _dimensions(couplings: Couplings, width: str) -> Iterator[tuple[str, str, int, Polynomial]]:
    """Where a width is: module, tensor, axis, and the size there."""
    for tensor, shape in couplings.shapes.items():
        path, _, name = tensor.rpartition(".")
        for axis, dimension in enumerate(shape):
            if width in dimension.symbols:
                yield path, name, axis, dimension


def _plain(module: nn.Module) -> bool:
    if isinstance(module, ConvNd):
        return not module.transposed and module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _listed(paths: list[str]) -> str:
    return ", ".join(paths) or "no layer"


def _refusal(width: str, why: str) -> str:
    return (
        f"GradMax cannot grow the width {width}: {why}. It grows what one linear layer or convolution writes and the next "
        "one reads; grow this width with how='replicas'."
    )
