"""Devices of a training run, and which layers tensor parallelism splits among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iftplan.base.errors import InputError
from iftplan.models.spec import Kind
from iftplan.plans.plan import WIDTHS, Plan, PlannedLayer

PAIRS: Final = (
    ("c_fc", "c_proj"),
    ("fc1", "fc2"),
    ("linear1", "linear2"),
    ("dense_h_to_4h", "dense_4h_to_h"),
)
"""Children of one module, of which the first feeds the second through an activation, as transformers name them."""

LARGE: Final = 2**16
"""Weights from which a layer is gathered by itself; smaller ones are gathered together, in one message."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Devices that train one network, a process on each: replicas × parts × tensor parallelism.

    Attributes:
        count: all of them.
        tensor: that split each linear layer among them and see the same samples.
        replicas: groups that hold a whole network each, in parts.

    Raises:
        InputError: the numbers do not divide.

    Example:
        >>> Devices(64, tensor=4, replicas=2).parts
        8
    """

    count: int
    tensor: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        if min(self.count, self.tensor, self.replicas) < 1 or self.count % (self.tensor * self.replicas):
            raise InputError(
                f"{self.count} devices cannot be arranged as {self.replicas} replica(s) of groups of {self.tensor} under tensor parallelism; use a multiple of {self.tensor * self.replicas} devices."
            )

    @property
    def parts(self) -> int:
        """Number of parts of each weight under FSDP, after it was split by tensor parallelism."""
        return self.count // (self.tensor * self.replicas)

    @property
    def data(self) -> int:
        """Number of groups that see samples of their own."""
        return self.count // self.tensor


@dataclass(frozen=True, slots=True)
class Split:
    """Split of one layer by tensor parallelism.

    Attributes:
        rows: whether by inputs, else by outputs.
        gathered: whether its outputs are gathered; a pair's first layer keeps them apart.
    """

    rows: bool = False
    gathered: bool = True


def splits(plan: Plan, tensor: int) -> Mapping[str, Split]:
    """Layer name → how so many devices split it; layers that stay whole on each are missing.

    Args:
        plan: of the network.
        tensor: devices that split each layer.
    """
    if tensor == 1:
        return {}
    linear = {x.name: x for x in plan.layers if _is_linear(x)}
    found = {
        x.name: Split() for x in linear.values() if x.after and (x.after.out_channels or 0) % tensor == 0
    }
    for name in list(found):
        module, _, child = name.rpartition(".")
        for first, second in PAIRS:
            partner = f"{module}.{second}" if module else second
            if child == first and partner in linear:
                found[name], found[partner] = Split(gathered=False), Split(rows=True)
    return found


def _is_linear(layer: PlannedLayer) -> bool:
    """Whether a layer is linear, one module with a weight of its own; branches and factors are several."""
    own = (
        layer.weight == f"{layer.name}.weight"
        and layer.structure.keys() <= set(WIDTHS)
        and layer.experts == 1
    )
    return own and layer.after is not None and layer.after.kind is Kind.LINEAR
