"""What a plan's layers are estimated to take on a machine that was profiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Execution = Literal["dense", "sparse"]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """Estimated time of one layer, in seconds of the whole batch.

    Attributes:
        name: of the layer.
        execution: what it is computed with: dense operators, or sparse kernels.
        dense: of the layer in the dense model.
        flops: of the layer in the plan that only MACs decide.
        seconds: of the layer in this plan.
        extrapolated: whether any of these lies outside of what was measured.
    """

    name: str
    execution: Execution
    dense: float
    flops: float
    seconds: float
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class WallClock:
    """Estimated times by which a plan was decided beside its MACs, in seconds.

    Attributes:
        profile: digest of the machine's profile.
        machine: the processor that was profiled.
        instructions: what its sparse kernels were made of.
        threads: of the processor.
        passes: "forward", or "step" for forward and backward together.
        batch: how many of the plan's input are computed together.
        layers: what was priced.
        unpriced: layer → why it was not.
        notes: sentences that a reader has to know.
    """

    profile: str
    machine: str
    instructions: str
    threads: int
    passes: Literal["forward", "step"]
    batch: int
    layers: tuple[LayerTime, ...]
    unpriced: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dense(self) -> float:
        """Seconds of the priced layers in the dense model."""
        return sum(layer.dense for layer in self.layers)

    @property
    def flops(self) -> float:
        """Seconds of the priced layers in the plan that only MACs decide."""
        return sum(layer.flops for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Seconds of the priced layers in this plan."""
        return sum(layer.seconds for layer in self.layers)
