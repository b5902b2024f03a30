"""Memory of one device and what it sends, in bytes, when several devices train a plan.

Sizes are those of `iftplan train` with `training.strategy=fsdp`: weights, gradients and optimizer state in float32, masks
sharded with their weights. Parts are counted as equal; where a side does not divide, the largest has a row or column more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from iftplan.models.spec import Kind
from iftplan.plans.plan import Plan, PlannedLayer
from iftplan.runs.devices.layout import LARGE, Devices, Split, splits

NUMBER: Final = 4
"""Bytes of a float32."""

MASK: Final = 3
"""Bytes of a masked weight's mask, of the union and of the intersection of all its masks so far, one each."""

DIGIT: Final = 11
"""Bits that a round of counting looks at."""

BITS: Final = 32
"""Bits of a float32 score, whose threshold is found in three rounds."""

SLOTS: Final[Mapping[str, int]] = {"adamw": 2, "adam": 2, "sgd": 1, "lamb": 2, "adams": 2}
"""Numbers that an optimizer keeps for each weight; of SGD, with momentum."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes that one device holds and sends.

    Attributes:
        weights: its part of all weights of planned layers.
        gradients: of those.
        optimizer: its state for those.
        masks: of masked weights, with the record of where masks have been.
        factors: masks once more as numbers, which gradients are multiplied by.
        gathered: weights that are whole among the parts: small and tied layers throughout a step, of the others the
            largest while it is computed.
        activations: inputs that linear layers and convolutions keep for the backward pass; attention, norms and
            activation functions keep more, which is not known.
        step: the least that a step adds to weights, optimizer state, masks and factors, at the end of its forward pass,
            in the backward pass of its largest layer or at the end of all; whole gradients of gathered layers count.
        update: scores of all masked weights while masks change, beside gradients and what is held anyway.
        parts_sent: per step, to gather large layers twice and others once, and to add up gradients over parts.
        replicas_sent: per step, to average gradients over replicas.
        tensor_sent: per step, to gather and add up what split layers compute.
        update_sent: per mask update by drop and growth, to add up counts that its thresholds are found by; the most
            where every layer has ties.
    """

    weights: int
    gradients: int
    optimizer: int
    masks: int
    factors: int
    gathered: int
    activations: int
    step: int
    update: int
    parts_sent: int
    replicas_sent: int
    tensor_sent: int
    update_sent: tuple[int, int]

    @property
    def held(self) -> int:
        """Bytes when a backward pass has ended."""
        return self.weights + self.gradients + self.optimizer + self.masks + self.factors

    @property
    def peak(self) -> int:
        """Bytes at the fullest moment that is known: in a step with its activations, or in an update."""
        return self.held - self.gradients + max(self.step, self.gradients + self.update)

    @property
    def sent(self) -> int:
        """Bytes of a step without a mask update."""
        return self.parts_sent + self.replicas_sent + self.tensor_sent


def device_memory(
    plan: Plan, devices: Devices, *, batch: int = 1, optimizer: str = "adamw", recompute: bool = False
) -> DeviceMemory:
    """Bytes of one device of those that train a plan together.

    Args:
        plan: of the network.
        devices: and how they are arranged.
        batch: samples of a step in each group that sees samples of its own.
        optimizer: a name that `iftplan train` knows.
        recompute: whether activations are computed again, block by block: only a block's input is kept, which is
            counted as the largest layer's. Messages of that are not counted.
    """
    how = splits(plan, devices.tensor)
    users = Counter(layer.weight for layer in plan.layers)
    layers = list(
        {layer.weight: layer for layer in reversed(plan.layers) if weights_of(layer)}.values()
    )  # tied once
    split = {layer.name: devices.tensor if layer.name in how else 1 for layer in layers}
    own = sum(_part(weights_of(layer), split[layer.name] * devices.parts) for layer in layers)
    shares = {layer.weight: _part(weights_of(layer), split[layer.name]) for layer in layers}
    apart = {x.weight for x in layers if weights_of(x) >= LARGE and users[x.weight] == 1}
    together = sum(share for weight, share in shares.items() if weight not in apart)
    masked = [layer for layer in layers if layer.maskable]
    parts = {layer.name: _part(layer.capacity, split[layer.name] * devices.parts) for layer in masked}
    covered = sum(parts.values())
    kept = [batch * _kept(layer, how.get(layer.name), devices.tensor) for layer in plan.layers]
    activations = max(kept) if recompute else sum(kept)
    largest = max((shares[weight] for weight in apart), default=0)
    whole, one = (NUMBER * n if devices.parts > 1 else 0 for n in (together, largest))
    scattered = NUMBER * sum(
        _part(n, devices.parts) for weight, n in shares.items() if not whole or weight in apart
    )
    return DeviceMemory(
        weights=NUMBER * own,
        gradients=NUMBER * own,
        optimizer=NUMBER * own * SLOTS[optimizer],
        masks=MASK * covered,
        factors=NUMBER * covered,
        gathered=whole + one,
        activations=activations,
        step=max(whole + activations, whole + 2 * one, 2 * whole + scattered),
        update=(2 * NUMBER + 3) * covered + 6 * NUMBER * max(parts.values(), default=0),
        parts_sent=_around(NUMBER * (3 * sum(shares.values()) - together), devices.parts),
        replicas_sent=2 * _around(NUMBER * own, devices.replicas),
        tensor_sent=sum(
            batch * _tensor_bytes(x, how[x.name], devices.tensor) for x in plan.layers if x.name in how
        ),
        update_sent=_update_bytes(masked, split, devices),
    )


def weights_of(layer: PlannedLayer) -> int:
    """Stored weights of a planned layer, those off its mask included; biases are none of them."""
    return layer.capacity + layer.dense_weights


def _part(count: int, among: int) -> int:
    return ceil(Fraction(count, among))


def _around(whole: int, among: int) -> int:
    """Bytes that each of several sends to gather, or to reduce and scatter, a tensor: all parts but its own."""
    return whole * (among - 1) // among


def _kept(layer: PlannedLayer, how: Split | None, tensor: int) -> int:
    """Bytes of one sample's inputs that a layer keeps for the backward pass."""
    after = layer.after
    if after is None or not layer.positions or after.in_channels is None or after.kind is Kind.EMBEDDING:
        return 0
    inputs = NUMBER * layer.positions * after.in_channels
    return inputs // tensor if how is not None and how.rows else inputs


def _tensor_bytes(layer: PlannedLayer, how: Split, tensor: int) -> int:
    """Bytes of one sample that each device sends for a split layer, forward and backward."""
    after = layer.after
    assert after is not None and after.in_channels is not None and after.out_channels is not None
    inputs, outputs = (NUMBER * layer.positions * n for n in (after.in_channels, after.out_channels))
    if how.rows:
        return 2 * _around(outputs, tensor)  # summed forward; backward every device has what it needs
    forward = _around(outputs, tensor) if how.gathered else 0
    return forward + 2 * _around(inputs, tensor)


def _update_bytes(masked: list[PlannedLayer], split: Mapping[str, int], devices: Devices) -> tuple[int, int]:
    """Least and most bytes that each device sends to add up counts, over as many dimensions as split a weight."""
    least = most = 0
    for layer in masked:
        a_round = sum(2 * _around(8 * 2**DIGIT, among) for among in (split[layer.name], devices.parts))
        rounds, for_ties = rounds_of(BITS), rounds_of(layer.capacity.bit_length())
        least += 2 * rounds * a_round
        most += 2 * (rounds + for_ties) * a_round
    return least, most


def rounds_of(bits: int) -> int:
    """Rounds of counting that find a threshold among numbers of so many bits."""
    return (bits - 1) // DIGIT + 1
